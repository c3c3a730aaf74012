"""`python -m visahub.hub -f jupyterhub_config.py`: JupyterHub itself, which then starts a second faster.

`rfc3987_syntax` compiles a grammar at its import, only to check IRIs in JSON schemas; without it they go unchecked
(https://github.com/python-jsonschema/jsonschema/pull/1521).
"""

import sys

sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]

from jupyterhub.app import main  # noqa: E402 - the line above must come first

if __name__ == "__main__":
    main()
