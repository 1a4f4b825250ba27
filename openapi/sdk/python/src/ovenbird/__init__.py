"""Client of Ovenbird: submit builds, follow their logs, use sandboxes.

`ovenbird.rest` is generated from the API's OpenAPI document and has every operation. What a generator cannot make
stands beside it: `follow` follows a build's log through broken connections, `ovenbird.live` does so over NATS, and
`build_end` waits for a build.
"""

from .build import build_end
from .client import connect
from .errors import Late, OvenbirdError, Refused, Unreachable
from .log import follow

__all__ = ("Late", "OvenbirdError", "Refused", "Unreachable", "build_end", "connect", "follow")
