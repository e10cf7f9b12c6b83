"""A process that has everything imported and forks one service a life: a start then costs what opening costs.

Speaks one JSON object a line: {"start": root, "log": file} -> {"pid": n}; {"wait": pid} -> {"status": n}; {"poll": pid} -> {"status": n | null}.
Single threaded, so that forking is safe. Run as `python -m campaigns.zygote words|minilm`.
"""

import gc
import json
import os
import sys
import traceback
from pathlib import Path

from campaigns.encoder import WordEncoder
from secure_embed.api import create_app, serve
from secure_embed.deployment import Deployment
from secure_embed.embed import Encoder
from secure_embed.errors import SecureEmbedError
from secure_embed.settings import Settings


def load(name: str, root: Path) -> Encoder:
    if name == "words":
        return WordEncoder()
    import torch

    from secure_embed.deployment import load_from

    torch.set_num_threads(1)
    return load_from(Settings.load(root, dev=True))


def live(root: Path, encoder: Encoder) -> int:
    """What `secure-embed serve --dev` does, with an encoder that is loaded already."""
    settings = Settings.load(root, dev=True)
    with Deployment(settings, encoder) as deployment:
        app = create_app(
            deployment.vault,
            settings.limits,
            resource=settings.server.public_url,
            issuers=tuple(issuer.issuer for issuer in settings.issuers),
        )
        serve(app, deployment.vault, settings)
    return 0


def child(root: Path, encoder: Encoder, stderr: str) -> None:
    status = 1
    try:
        log = os.open(stderr, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        status = live(root, encoder)
    except SecureEmbedError as refused:
        print(f"refused: {refused.code}: {refused.detail}", file=sys.stderr, flush=True)
        status = refused.exit_status
    except BaseException:  # noqa: BLE001 - a fork must never go on as the zygote
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def main(name: str) -> None:
    encoders: dict[str, Encoder] = {}
    for line in sys.stdin:
        command = json.loads(line)
        if "start" in command:
            root = Path(command["start"])
            if name not in encoders:
                encoders[name] = load(name, root)
                gc.freeze()
            pid = os.fork()
            if pid == 0:
                child(root, encoders[name], command["log"])
            answer: dict[str, int | None] = {"pid": pid}
        else:
            (what, pid), *_ = command.items()
            done, status = os.waitpid(pid, 0 if what == "wait" else os.WNOHANG)
            answer = {"status": os.waitstatus_to_exitcode(status) if done else None}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
