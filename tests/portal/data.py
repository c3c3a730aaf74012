"""Invented people, experiments and offers for the tests of the portal."""

from __future__ import annotations

from datetime import UTC, date, datetime

from visahub.flows.launch import Menu
from visahub.model.account import Identity, Role
from visahub.model.experiment import Experiment, Member, TeamRole
from visahub.model.offer import Environment, Hardware, Offer
from visahub.model.policy import Restriction

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)

ALICE = Identity(issuer="sample", subject="1", username="alice", display_name="Alice Adams", email="alice@example.org")
BOB = Identity(issuer="sample", subject="2", username="bob", display_name="Bob Brown")
CAROL = Identity(
    issuer="sample", subject="3", username="carol", display_name="Carol Clark", roles=frozenset({Role.STAFF}), quota=-1
)
DORA = Identity(issuer="sample", subject="4", username="dora", display_name="Dora Dean", quota=0)

_TEAM = (
    Member("alice", "Alice Adams", TeamRole.PRINCIPAL_INVESTIGATOR),
    Member("mweber", "M. Weber"),
    Member("jortiz", "J. Ortiz", TeamRole.LOCAL_CONTACT),
)


def experiments() -> list[Experiment]:
    """The experiments of the design pages, one under embargo, one without dates, and many of one instrument."""
    known = [
        Experiment(
            id="xfel/700002",
            proposal="p700002",
            title="FXE example data",
            instrument="EUXFEL-XMPL",
            start=date(2021, 9, 27),
            end=date(2021, 12, 30),
            public_at=date(2022, 1, 1),
            doi="10.22003/XFEL.EU-DATA-700002-00",
            licence="CC BY 4.0",
            technique="pump-probe",
            summary="Femtosecond X-ray experiments: pump-probe scattering of a model compound in solution, one dark "
            "run and two runs with delay scan.",
            team=(Member("zoe", "Zoe Zimmer", TeamRole.PRINCIPAL_INVESTIGATOR),),
            source="sample",
            path="/data/p700002",
            url="https://in.xfel.eu/metadata/doi/700002",
        ),
        Experiment(
            id="petra/11013662",
            proposal="11013662",
            title="In situ growth of perovskite films",
            instrument="P03",
            start=date(2026, 10, 2),
            end=date(2026, 10, 5),
            public_at=date(2029, 10, 5),
            team=_TEAM,
            source="sample",
        ),
        _open("p700001", "Detector Calibration Test Data", date(2019, 1, 19), date(2019, 1, 20)),
        _open("p700000", "Example Data", date(2017, 11, 8), date(2017, 12, 31)),
        _open("CXIDB-ID-98", "ExPaNDS Reference Data for Serial Crystallography", date(2018, 8, 30), date(2018, 9, 3)),
        Experiment(
            id="petra/secret",
            proposal="p900001",
            title="Nobody may read this title",
            instrument="P03",
            start=date(2026, 1, 1),
            end=date(2026, 1, 2),
            public_at=date(2027, 5, 3),
            team=(Member("zoe", "Zoe Zimmer"),),
            source="sample",
        ),
        Experiment(
            id="petra/nodates",
            proposal="p900002",
            title="Planned tomography",
            instrument="P05",
            team=_TEAM,
            source="sample",
        ),
        Experiment(
            id="petra/hostile",
            proposal="p666",
            title='<script>alert(1)</script> {{7*7}} "quoted"',
            instrument="P03 <b>",
            start=date(2016, 1, 1),
            end=date(2016, 1, 2),
            public_at=date(2016, 1, 1),
            source="sample",
            url="javascript:alert(1)",
        ),
    ]
    many = [
        Experiment(
            id=f"petra/many-{number:02}",
            proposal=f"m{number:02}",
            title=f"Routine measurement {number}",
            instrument="P11",
            start=date(2015, 3, 1),
            end=date(2015, 3, 2),
            public_at=date(2018, 1, 1),
            source="sample",
        )
        for number in range(30)
    ]
    return known + many


def _open(proposal: str, title: str, start: date, end: date) -> Experiment:
    return Experiment(
        id=f"xfel/{proposal}",
        proposal=proposal,
        title=title,
        instrument="EUXFEL-XMPL",
        start=start,
        end=end,
        public_at=date(2020, 1, 1),
        source="sample",
    )


MENU = Menu(
    environments=(
        Environment(
            id="analysis",
            name="Data analysis",
            version="2026.3",
            description="Python, HyperSpy, silx, DAWN, ImageJ; Debian 12 with XFCE",
            images={"local": "a", "maxwell": "a"},
        ),
        Environment(
            id="crystal",
            name="Serial crystallography",
            version="0.11",
            description="CrystFEL, Cheetah, Phenix, CCP4",
            images={"local": "c"},
        ),
        Environment(
            id="tomo",
            name="Tomography",
            version="1.4",
            description="tomopy, ASTRA, Savu, ParaView",
            images={"local": "t", "maxwell": "t"},
            has_desktop=False,
        ),
        Environment(
            id="own",
            name="In-house tools",
            version="7",
            description="Beamline control and alignment",
            images={"local": "o"},
            restriction=Restriction(roles=frozenset({"staff"}), sentence="For staff. Ask your local contact."),
        ),
    ),
    hardware=(
        Hardware(
            id="small", name="Small", backend="local", place="Virtual machine of your own", cores=4, memory_mb=8192
        ),
        Hardware(
            id="large", name="Large", backend="local", place="Virtual machine of your own", cores=8, memory_mb=16384
        ),
        Hardware(
            id="gpu",
            name="With GPU",
            backend="local",
            place="Virtual machine of your own",
            cores=16,
            memory_mb=65536,
            gpu="NVIDIA A100",
            restriction=Restriction(
                instruments=frozenset({"P03"}), sentence="For beamtimes with a GPU allocation. Ask your local contact."
            ),
        ),
        Hardware(id="shared", name="Shared node", backend="maxwell", place="Maxwell cluster", cores=8, memory_mb=32768),
        Hardware(id="whole", name="Whole node", backend="maxwell", place="Maxwell cluster", cores=64, memory_mb=524288),
    ),
)

OFFERS = {
    "local": [
        Offer(hardware=MENU.hardware[0], is_free=True, sentence="free now, ready in about 2 s"),
        Offer(hardware=MENU.hardware[1], is_free=True, sentence="free now, ready in about 15 s"),
        Offer(hardware=MENU.hardware[2], is_free=True, sentence="free now"),
    ],
    "maxwell": [
        Offer(hardware=MENU.hardware[3], is_free=True, sentence="free now"),
        Offer(hardware=MENU.hardware[4], is_free=False, sentence="about 12 min, place 3"),
    ],
}
