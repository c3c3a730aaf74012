"""The description of the JSON API (OpenAPI 3.1), written by hand and checked against the answers by the tests."""

from __future__ import annotations

from typing import Any

from ..model.experiment import MAX_PAGE, Sort
from ..model.request import KEYBOARDS, MAX_EXPERIMENTS, MAX_ID, MAX_NAME, MAX_NOTES, RESOLUTIONS

Json = dict[str, Any]

_TEXT: Json = {"type": "string"}
_TRUTH: Json = {"type": "boolean"}
_WHOLE: Json = {"type": "integer"}
_TIME: Json = {"type": ["string", "null"], "format": "date-time"}
_KEY: Json = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"}
_DAY: Json = {"type": ["string", "null"], "format": "date"}


def _object(properties: Json, required: list[str] | None = None) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
    }


def _list(of: Json) -> Json:
    return {"type": "array", "items": of}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


SCHEMAS: Json = {
    "Error": _object({"status": _WHOLE, "message": _TEXT, "rule": _TEXT}),
    "Experiment": _object(
        {key: _TEXT for key in ("id", "proposal", "title", "instrument")}
        | {"start": _DAY, "end": _DAY, "public_at": _DAY}
        | {key: _TEXT for key in ("doi", "url", "summary", "licence", "technique")}
        | {"team": {"type": ["array", "null"], "items": _object({"username": _TEXT, "name": _TEXT, "role": _TEXT})}}
        | {"rule": _TEXT, "sentence": _TEXT, "may_choose": _TRUTH}
    ),
    "ExperimentPage": _object(
        {"total": _WHOLE, "page": _WHOLE, "pages": _WHOLE, "experiments": _list(_ref("Experiment"))}
    ),
    "StartRequest": _object(
        {
            "experiments": _list(_TEXT | {"minLength": 1, "maxLength": MAX_ID}) | {"maxItems": MAX_EXPERIMENTS},
            "environment": _KEY,
            "hardware": _KEY,
            "name": _TEXT | {"maxLength": MAX_NAME, "description": "A friendly one is found when it is empty."},
            "resolution": {"enum": list(RESOLUTIONS)},
            "keyboard": {"enum": list(KEYBOARDS)},
            "notes": _TEXT | {"maxLength": MAX_NOTES},
        },
        required=["environment", "hardware"],
    ),
    "Instance": _object(
        {key: _TEXT for key in ("id", "server_name", "name", "notes")}
        | {"phase": {"enum": ["starting", "ready", "stopping", "stopped", "error", "deleting", "gone"]}}
        | {"want": {"enum": ["on", "off", "gone"]}, "sentence": _TEXT, "experiments": _list(_TEXT)}
        | {"environment": _TEXT, "hardware": _TEXT, "jupyterlab": _TEXT, "page": _TEXT}
        | {"desktop": {"type": ["string", "null"]}}
        | {key: _TIME for key in ("created", "started", "ready", "stopped", "last_activity")}
    ),
    "Instances": _object({"instances": _list(_ref("Instance"))}),
    "Activity": _object({"last_activity": _TIME, "last_input": _TIME}, required=[]) | {"minProperties": 1},
    "MyData": _object(
        {"made": _TIME, "username": _TEXT, "account": {"type": "object"}, "elsewhere": _list(_TEXT)}
        | {key: _list({"type": "object"}) for key in ("identities", "preferences", "members", "instances")}
        | {"instance_events": _list({"type": "object"})}
    ),
    "Offers": _object(
        {
            "environments": _list(
                _object(
                    {key: _TEXT for key in ("id", "name", "version", "description")}
                    | {"has_desktop": _TRUTH, "places": _list(_TEXT)}
                    | {"allowed": _TRUTH, "rule": _TEXT, "sentence": _TEXT}
                )
            ),
            "hardware": _list(
                _object(
                    {key: _TEXT for key in ("id", "name", "place", "backend", "gpu", "description")}
                    | {"cores": _WHOLE, "memory_mb": _WHOLE}
                    | {"allowed": _TRUTH, "rule": _TEXT, "sentence": _TEXT}
                    | {"is_free": {"type": ["boolean", "null"]}, "availability": _TEXT, "asked": _TIME}
                )
            ),
        }
    ),
}

_REASONS = {
    "401": "No valid token or session.",
    "403": "The rules say no; `rule` names the rule.",
    "404": "There is no such thing, or it is somebody else's.",
    "409": "It does not fit the present state, or the quota is used up.",
    "422": "A field or parameter is wrong; the message names it.",
    "429": "Too many requests.",
    "503": "The database or the Hub does not answer; see Retry-After.",
}


def _answers(status: str, schema: str | None, *others: str) -> Json:
    good: Json = {"description": "Done."}
    if schema is not None:
        good["content"] = {"application/json": {"schema": _ref(schema)}}
    wrong = {"application/json": {"schema": _ref("Error")}}
    codes = sorted({"401", "403", "422", "503", *others})
    return {status: good} | {code: {"description": _REASONS[code], "content": wrong} for code in codes}


def _does(
    name: str, summary: str, answers: Json, body: str | None = None, parameters: list[Json] | None = None
) -> Json:
    operation: Json = {"operationId": name, "summary": summary, "responses": answers}
    if parameters:
        operation["parameters"] = parameters
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(body)}}}
    return operation


def _query(name: str, schema: Json, description: str) -> Json:
    return {"name": name, "in": "query", "schema": schema, "description": description}


_ID: Json = {"name": "id", "in": "path", "required": True, "schema": _TEXT}
_YEAR: Json = {"type": "integer", "minimum": 1900, "maximum": 2200}
_SEARCH = [
    _query("text", _TEXT | {"maxLength": 200}, "Every word must occur."),
    _query("instrument", _TEXT, "Only this instrument."),
    _query("first_year", _YEAR, "Began in this year or later."),
    _query("last_year", _YEAR, "Began in this year or earlier."),
    _query("with_open_data", _TRUTH | {"default": True}, "Also what everybody may read."),
    _query("only_mine", _TRUTH | {"default": False}, "Only experiments with me in the team."),
    _query("sort", {"enum": [item.value for item in Sort]}, "The order."),
    _query("page", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE}, "The page, from 1."),
    _query("page_size", {"type": "integer", "minimum": 5, "maximum": 100, "default": 25}, "Experiments on a page."),
]

PATHS: Json = {
    "/api/experiments": {
        "get": _does("searchExperiments", "Search experiments", _answers("200", "ExperimentPage", "429"), None, _SEARCH)
    },
    "/api/experiments/{id}": {
        "parameters": [_ID],
        "get": _does("getExperiment", "One experiment", _answers("200", "Experiment", "404")),
    },
    "/api/instances": {
        "get": _does("listInstances", "My instances", _answers("200", "Instances")),
        "post": _does(
            "createInstance", "Start a new instance", _answers("201", "Instance", "409", "429"), "StartRequest"
        ),
    },
    "/api/instances/{id}": {
        "parameters": [_ID],
        "get": _does("getInstance", "One of my instances", _answers("200", "Instance", "404")),
        "delete": _does("deleteInstance", "Delete for ever", _answers("204", None, "404", "409")),
    },
    "/api/instances/{id}/start": {
        "parameters": [_ID],
        "post": _does("startInstance", "Start again", _answers("202", "Instance", "404", "409", "429")),
    },
    "/api/instances/{id}/stop": {
        "parameters": [_ID],
        "post": _does("stopInstance", "Stop; files are kept", _answers("202", "Instance", "404", "409")),
    },
    "/api/instances/{id}/activity": {
        "parameters": [_ID],
        "post": _does(
            "reportActivity", "For the instance itself, with its own token", _answers("204", None, "404"), "Activity"
        ),
    },
    "/api/me/data": {"get": _does("getMyData", "All that is stored about me", _answers("200", "MyData"))},
    "/api/offers": {"get": _does("listOffers", "What may be chosen", _answers("200", "Offers"))},
}


def described(prefix: str, environments: list[str], hardware: list[str]) -> Json:
    """Gives the description for one site: its address, and what may be chosen there."""
    start = SCHEMAS["StartRequest"]
    offered = {"environment": {"enum": environments}, "hardware": {"enum": hardware}}
    here = start | {"properties": start["properties"] | offered}
    components = DESCRIPTION["components"] | {"schemas": SCHEMAS | {"StartRequest": here}}
    return DESCRIPTION | {"servers": [{"url": prefix.rstrip("/")}], "components": components}


DESCRIPTION: Json = {
    "openapi": "3.1.0",
    "info": {
        "title": "visahub",
        "version": "1",
        "description": "Instances with the data of experiments. Tokens come from the Hub's token page; they need the "
        "scope access:services!service=visahub, and servers!user to start and stop. Errors are always "
        "{status, message, rule}.",
    },
    "security": [{"token": []}],
    "paths": PATHS,
    "components": {
        "schemas": SCHEMAS,
        "securitySchemes": {
            "token": {
                "type": "apiKey",
                "in": "header",
                "name": "Authorization",
                "description": "The word token, a space, and the token.",
            }
        },
    },
}
