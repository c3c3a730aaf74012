"""What travels to a backend keeps its secrets out of logs; errors carry a sentence for the user."""

from __future__ import annotations

from visahub.model.account import Account
from visahub.model.errors import Failed, Refused, Unavailable, VisahubError
from visahub.model.launch import Condition, Launch, Seen
from visahub.model.offer import Environment, Hardware


def test_a_token_is_not_in_the_text_of_a_launch() -> None:
    launch = Launch(
        instance_id="i",
        attempt="a",
        deployment="d",
        name="n",
        account=Account(id=1, username="alice", uid=1, gid=1),
        experiments=(),
        environment=Environment(id="e", name="e"),
        hardware=Hardware(id="h", name="h", backend="b", place="p", cores=1, memory_mb=1),
        resolution="client",
        keyboard="us",
        environ={"JUPYTERHUB_API_TOKEN": "s3cret"},
    )
    assert "s3cret" not in repr(launch)
    assert "s3cret" not in repr(Condition(seen=Seen.RUNNING, state={"password": "s3cret"}))


def test_every_error_is_its_sentence() -> None:
    for error in (Refused("No.", rule="r"), Unavailable("No."), Failed("No.", log="long")):
        assert isinstance(error, VisahubError)
        assert str(error) == error.sentence == "No."
    assert Refused("No.", rule="r").status == 403
    assert Unavailable("No.").retry_seconds == 5
