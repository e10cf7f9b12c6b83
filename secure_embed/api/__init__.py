"""api/: the HTTP door. FastAPI, request and response models, problem details, TLS.

What may not be in here: decisions. A handler parses, hands one use case of the vault to a thread, and shapes the
answer. Async lives in this package alone.
"""

from secure_embed.api.app import create_app
from secure_embed.api.server import configure_logging, serve

__all__ = ["configure_logging", "create_app", "serve"]
