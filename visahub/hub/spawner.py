"""The Hub's door to visahub, the spawner that `configure(c)` sets: rules are in `flows/`, truth in `store/`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, NoReturn
from urllib.parse import urlsplit

from jupyterhub.spawner import Spawner
from traitlets import Integer, Unicode, default

from ..backends.base import Backend
from ..flows import end, launch
from ..flows.launch import Admission
from ..model.errors import Refused, Unavailable, VisahubError
from ..model.instance import Instance, Phase, Want
from ..model.launch import Step
from ..model.request import StartRequest
from ..store.database import ask
from . import form, launches, limits, metrics, resume
from .desk import Desk, now
from .refusals import spoken

_PROGRESS_SECONDS = 0.5


class VisaSpawner(Spawner):
    """One instance as the Hub sees it: a named server. Its state only points to the row of the instances' table."""

    attempt = Unicode(help="The attempt that this server belongs to, empty while none was admitted.")
    starts_at_once = Integer(
        20,
        min=1,
        help="How many instances of one account may be starting at the same time; one more is told to wait. The quota "
        "bounds how many there are, this how busy one account makes the Hub. Raise it where people start courses.",
    ).tag(config=True)
    # Whether this one is among them.
    is_counted = False
    _admission: Admission | None = None
    # Only while what runs already is taken up: its address, and what its login may ask for.
    resumed_address = ""
    kept_scopes: Sequence[str] = ()
    # Whether the admitted start was begun by a Hub that is gone.
    _is_begun = False

    @property
    def desk(self) -> Desk:
        return Desk.of(self.config)

    # The three doors of a start: form, address and JSON.

    @default("apply_user_options")
    def _apply_user_options_default(self) -> Any:
        return VisaSpawner.admit

    @default("options_form")
    def _options_form_default(self) -> Any:
        return form.fragment

    def options_from_form(self, form_data: Mapping[str, list[Any]]) -> dict[str, Any]:
        """Reads the lists of strings that a form sends; `admit` judges them."""
        return form.options(form_data)

    def options_from_query(self, query_data: Mapping[str, list[str]]) -> NoReturn:
        """Keeps the choices of an address for the form: opening an address starts nothing."""
        form.keep(self.handler, query_data)
        raise form.NothingStarted()

    async def admit(self, options: object) -> None:
        """Checks the options, whichever door they came through, and commits the attempt before anything exists."""
        self._admission = None
        lost = self._lost()
        # The token is kept before the row is written: a Hub that is killed between the two finds the row by its name.
        self._keep_state()
        try:
            if lost is not None and lost.phase is Phase.READY:
                return await resume.take_up(self, lost)
            limits.check_starts(self, self.starts_at_once)
            self._admission = admission = await self._admitted(options, lost)
        except Exception as error:
            self.is_counted = False
            await self._forget()
            raise spoken(error, self.log) from None
        self.attempt = admission.instance.attempt
        # The Hub commits this before `start` runs, so that a Hub that is killed finds its way back to the row.
        self._keep_state()
        self.user_options = self.orm_spawner.user_options = admission.instance.request.as_options()
        await resume.keep_token(self)

    def _lost(self) -> Instance | None:
        """Gives the row that a round found and that the Hub has forgotten."""
        lost: Instance | None = getattr(self.handler, "lost", {}).get((self.user.name, self.name))
        return lost

    async def _admitted(self, options: object, lost: Instance | None) -> Admission:
        if not self.name:
            raise Refused(
                "Instances have names here. Open My instances and choose New instance.",
                rule="default-server",
                status=400,
            )
        desk, parts = self.desk, self.desk.parts
        self._is_begun = lost is not None
        if lost is not None:
            return await ask(desk.again, lost)
        account = await ask(desk.account, self.user.name)
        request = StartRequest.read(options)
        seconds = parts.settings.start_seconds
        return await ask(launch.admit, parts.store, parts.menu, account, self.name, request, now(), seconds)

    async def _forget(self) -> None:
        """Takes refused options out of the Hub's database: what was admitted last comes back, or nothing."""
        try:
            row = await ask(self.desk.row, self.user.name, self.name)
        except Exception:
            row = None
        self.orm_spawner.user_options = row.request.as_options() if row else None

    # From start to end.

    async def start(self) -> str:
        """Runs the admitted start and gives the address; a failure is cleaned up and told by the flow."""
        if self.resumed_address:
            address, self.resumed_address = self.resumed_address, ""
            self._server = resume.Known(orm_server=self.orm_spawner.server)
            self._set_address(address)
            return address
        if self._admission is None:
            # A facility that sets its own `apply_user_options` does not open a door past the rules.
            await self.admit(self.user_options)
        admission = self._admission
        if admission is None:
            raise spoken(RuntimeError("A start without an admission"), self.log)
        try:
            # The Hub cancels a start when its user stops it, and then waits one second. The flow goes on for the
            # moments until `stop` commits the wish, sees it, and cleans up in its own time.
            start = self._go_on(admission) if self._is_begun else self._run(admission)
            return await asyncio.shield(self.desk.keep(start))
        except Exception as error:
            raise spoken(error, self.log) from None

    async def _run(self, admission: Admission) -> str:
        parts = self.desk.parts
        backend = parts.backend(admission.hardware.backend)
        measured = metrics.Start(backend.id)
        try:
            address = await self._launched(admission, backend, measured)
        except BaseException as error:
            measured.ended(error)
            raise
        measured.ended()
        return address

    async def _launched(self, admission: Admission, backend: Backend, passed: Callable[[Step], None]) -> str:
        return await launch.run(self.desk.parts.store, backend, launches.of(self, admission), now, passed)

    async def _go_on(self, admission: Admission) -> str:
        """Runs a start again that the Hub's death interrupted, under its attempt."""
        await self.desk.until_listed(admission.instance)
        return await self._run(admission)

    def get_env(self) -> dict[str, str]:
        """Gives all that an instance is told: nothing of the Hub's own environment."""
        return launches.environ(self, super().get_env())

    async def poll(self) -> int | None:
        """Tells from our row and the shared look whether the instance runs: None for yes, and for "cannot tell"."""
        if not self.attempt and not await self._found():
            return 0
        try:
            return await self._polled()
        except Unavailable as error:
            self.log.warning("%s: taken for running, since it cannot be asked: %s", self._log_name, error)
        except Exception:
            self.log.exception("%s: taken for running, since it cannot be asked", self._log_name)
        return None

    async def _found(self) -> bool:
        """Finds the start that the Hub was killed in before it had kept the attempt.

        Otherwise the Hub would believe that nothing runs, and a stop that it then confirms would stop nothing.
        """
        if not (self._check_pending and self.api_token):
            return False
        row = await self.desk.row_at_last(self.user.name, self.name)
        if row is None or row.phase is not Phase.STARTING or row.want is not Want.ON:
            return False
        self.attempt = row.attempt
        self._keep_state()
        return True

    async def _polled(self) -> int | None:
        row = await self.desk.rows.row(self.attempt)
        if row is None:
            return await self.desk.poll_without_row(self.attempt)
        if row.phase in {Phase.STOPPED, Phase.ERROR, Phase.GONE}:
            return 0
        if row.want is not Want.ON or row.phase in {Phase.STOPPING, Phase.DELETING}:
            # Who stops it asks this first, and calls `stop` only for what runs. For everybody else it has ended: a
            # restarted Hub would wait for its answer, and refuse everything meanwhile.
            return None if self.pending == "stop" else 0
        if row.phase is Phase.STARTING:
            # A start has a deadline, and `reconcile` watches it.
            return None
        return await self.desk.poll(row)

    async def get_url(self) -> str:
        """Gives the address after a restart of the Hub. A start that the Hub's death interrupted goes on here."""
        try:
            # "Could not ask" must not look like "not there": the Hub would stop what it then does not reach.
            row = await self.desk.attempt_at_last(self.attempt)
            if row is not None and row.phase is Phase.STARTING:
                await asyncio.shield(self.desk.keep(self._go_on(await ask(self.desk.again, row))))
                row = await self.desk.attempt_at_last(self.attempt)
            if row is not None and row.address:
                self._set_address(row.address)
            if row is not None and row.phase is Phase.READY:
                self._server = resume.Known(orm_server=self.orm_spawner.server)
        except Exception as error:
            # The Hub must not be held up by one instance: it asks the address below once and gives up.
            self.http_timeout = 1
            self.log.error("%s could not go on: %s", self._log_name, spoken(error, self.log).message)
        return str(self.server.url)

    def _set_address(self, address: str) -> None:
        """Keeps all parts of the address; the Hub itself would forget the scheme (`app.py`, check_spawner)."""
        url = urlsplit(address)
        self.server.proto = url.scheme
        self.server.ip = url.hostname or ""
        self.server.port = url.port or (443 if url.scheme == "https" else 80)

    async def stop(self, now: bool = False) -> None:
        """Stops and keeps the record. What cannot be reached now is stopped by the next rounds."""
        await self._end(end.stop)

    async def delete_forever(self) -> None:
        """Deletes the instance; called when the Hub's record of the server goes."""
        if not self.name:
            return
        row = await ask(self.desk.row, self.user.name, self.name)
        if row is not None:
            self.attempt = row.attempt
            await self._end(end.delete)

    async def rename(self, old_name: str, new_name: str) -> None:
        """Refuses: the name is part of the address under which the instance runs and is remembered."""
        sentence = "The address of an instance does not change. Give it another name on its page instead."
        raise spoken(Refused(sentence, rule="rename", status=409), self.log)

    async def _end(self, flow: Any) -> None:
        row = await self._row()
        if row is None:
            return await self.desk.end_without_row(self.attempt)
        parts = self.desk.parts
        try:
            await flow(parts.store, parts.backend(row.backend), row.id, now)
        except VisahubError as error:
            # The wish is committed; the rounds repeat it. The Hub's record and the token go now.
            self.log.warning("%s ends later: %s", self._log_name, error)

    async def _row(self) -> Instance | None:
        """Gives our row, None when it belongs to another attempt: that one is not ours to poll or stop."""
        row = await ask(self.desk.row, self.user.name, self.name)
        return row if row is not None and row.attempt == self.attempt else None

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """Tells the steps of this attempt as they are saved."""
        shown = 0
        while self.attempt:
            try:
                row = await self._row()
                events = await ask(self.desk.steps, row, shown) if row else []
            except Unavailable:
                row, events = None, []
            for event in events:
                shown = event.id
                told = {"message": event.text}
                yield told if event.percent is None else {**told, "progress": event.percent}
            if row is not None and row.phase is not Phase.STARTING:
                return
            await asyncio.sleep(_PROGRESS_SECONDS)

    # What the Hub keeps of a server.

    def start_polling(self) -> None:
        """Begins the Hub's polls, at the end of each start."""
        resume.give_scopes_back(self)
        super().start_polling()

    def get_state(self) -> dict[str, Any]:
        """Points to our row. The token is kept so that it dies with its attempt, also after a restart of the Hub."""
        state: dict[str, Any] = super().get_state()
        if self.attempt:
            state["attempt"] = self.attempt
        if self.api_token:
            state["api_token"] = self.api_token
        return state

    def _keep_state(self) -> None:
        self.orm_spawner.state = self.get_state()
        self.db.commit()

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.attempt = state.get("attempt", "")
        self.api_token = state.get("api_token", "")

    def clear_state(self) -> None:
        super().clear_state()
        self.attempt = ""
        self._admission = None
