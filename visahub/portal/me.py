"""What is stored about me: a page that says it, and all of it as a file."""

from __future__ import annotations

import json

from ..flows import privacy
from ..store.database import ask
from .api import Api
from .base import Handler


class MePage(Handler):
    """GET me: my account as the facility knows it, and what is kept for how long."""

    async def get(self) -> None:
        self.render_page("me.html", keep=self.portal.keep, elsewhere=privacy.ELSEWHERE)


class ApiMyData(Api):
    """GET api/me/data: everything that is stored about me, to be kept as a file."""

    async def get(self) -> None:
        told = await ask(privacy.export, self.portal.store, self.me, self.portal.now(), seconds=10)
        self.set_header("Content-Type", "application/json")
        self.set_header("Content-Disposition", f'attachment; filename="visahub-{self.me.id}.json"')
        self.finish(json.dumps(told, indent=1))
