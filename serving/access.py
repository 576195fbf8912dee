"""Who sends a request: the keys of the box, kept in memory until anything in the state database changes.

A key that is revoked, by whatever process, opens nothing from the next request on: the database tells for
microseconds whether anybody wrote to it since (State.version), and then the key is read again.
"""

import math
import time
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import urlsplit

from local_llm.errors import AuthenticationError, ForbiddenError
from local_llm.keys import Admission, KeyStore, hash_of, incorrect_key
from local_llm.permissions import Caller
from local_llm.state import State
from serving.preflight import is_loopback

BEARER = b"bearer "
# Each is a few hundred bytes. Only secrets of existing keys are kept, so this is not for strangers to fill.
MOST_KEPT = 50_000


@dataclass(frozen=True, slots=True)
class _Kept:
    """Holds while the database is at `version`: entries carry it, as threads may be slow to put theirs down."""

    version: object
    admission: Admission


class Access:
    """Safe to ask from any thread; from the event loop too, as what is not kept takes well below a millisecond."""

    def __init__(self, state: State, keys: KeyStore):
        self._state = state
        self._keys = keys
        self._kept: dict[bytes, _Kept] = {}
        self._keyless: _Kept | None = None
        self._has_keys = False
        self._used: dict[str, int] = {}
        self._told = -math.inf

    def caller(
        self, authorization: bytes | None, *, host: bytes | None = None, origin: bytes | None = None
    ) -> Caller:
        """The holder of the key in a request's headers, or the local owner on a box where no key was ever created.

        `host` and `origin` are headers too: without keys they tell strange pages in a browser from programs.

        Raises: AuthenticationError, ForbiddenError.
        """
        version = self._state.version()
        local = self._local_caller(version)
        if local is not None:
            refuse_strange_pages(host, origin)
            return local
        secret = _bearer(authorization)
        if secret is None:
            raise AuthenticationError(
                "You didn't provide an API key.", hint="send it as: Authorization: Bearer KEY"
            )
        digest = sha256(secret).digest()
        kept = self._kept.get(digest)
        if kept is not None and kept.version == version:
            return self._admit(kept.admission)
        found = self._keys.admission(hash_of(secret))
        if found is None:
            raise incorrect_key()
        self._keep(digest, _Kept(version, found))
        return self._admit(found)

    def take_used(self, *, older_than: float) -> dict[str, int]:
        """When keys were used since this last told, by their ids; nothing if that is fewer seconds ago."""
        if time.monotonic() - self._told < older_than:
            return {}
        self._told = time.monotonic()
        used, self._used = self._used, {}
        return used

    def _admit(self, admission: Admission) -> Caller:
        """Raises: AuthenticationError if its time is over."""
        moment = time.time()
        if admission.until is not None and admission.until <= moment:
            raise incorrect_key()
        caller = admission.caller
        if caller.key_id is not None:
            self._used[caller.key_id] = int(moment)
        return caller

    def _keep(self, digest: bytes, kept: _Kept) -> None:
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        self._kept[digest] = kept

    def _local_caller(self, version: object) -> Caller | None:
        """Who asks without a key, or None once one was created."""
        if self._has_keys:
            return None
        kept = self._keyless
        if kept is None or kept.version != version:
            if self._keys.any_created():
                self._has_keys = True  # and never again none: see KeyStore.any_created()
                return None
            owner = self._keys.local_owner(self._state.local_project_id())
            kept = self._keyless = _Kept(version, Admission(owner, None))
        return kept.admission.caller


def _bearer(authorization: bytes | None) -> bytes | None:
    if authorization is None or authorization[: len(BEARER)].lower() != BEARER:
        return None
    return authorization[len(BEARER) :].strip() or None


def refuse_strange_pages(host: bytes | None, origin: bytes | None) -> None:
    """Without keys whoever reaches loopback is an owner, and a page in a browser on this machine reaches it: by a
    name that it lets point here, or by posting without reading the answer. Both show in these headers.

    Raises: ForbiddenError.
    """
    named = [_hostname(b"//" + (host or b""))] + ([_hostname(origin)] if origin else [])
    for name in named:
        if not is_loopback(name):
            raise ForbiddenError(
                f"without keys only this machine may ask, not {name!r}", hint="local-llm keys create NAME"
            )


def _hostname(url: bytes) -> str:
    try:
        return urlsplit(url.decode("latin-1")).hostname or ""
    except ValueError:  # half a pair of brackets
        return ""
