"""A token of PKCS#11 as long as it is there, and again once it is back: session, login, the root key's handle.

Nothing is known here of files or formats. Every call runs in one thread for each library, for three reasons: the library is
initialised without locks of its own (C_Initialize with NULL), it is one state for the whole process, and a call into it
may hang when an HSM is unplugged. Sources: PKCS#11 v2.40 (OASIS), chapters 5.4 to 5.6 and 5.14.
"""

import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import NoReturn, Protocol, TypeVar, cast

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11.types import Session, Token, UnwrapMixin, WrapMixin

from secure_embed.errors import ConfigurationError, Unavailable
from secure_embed.keys.bounded import Bounded, TookTooLong
from secure_embed.keys.private_files import read_credential
from secure_embed.keys.sealing import key_bytes
from secure_embed.settings import TokenSettings

__all__ = ["RootOnToken", "TokenRefuses"]

T = TypeVar("T")

_pin_refusals = (
    pkcs11.PinExpired,
    pkcs11.PinIncorrect,
    pkcs11.PinInvalid,
    pkcs11.PinLenRange,
    pkcs11.PinLocked,
    pkcs11.UserPinNotInitialized,
)
_value_faults = (pkcs11.WrappedKeyInvalid, pkcs11.WrappedKeyLenRange)
# The key that passes through the token on its way: no object of the token, and readable, since we need its bytes.
_passing: dict[Attribute, object] = {Attribute.TOKEN: False, Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True}

_threads: dict[str, Bounded] = {}  # the library's state is the process', and so is its thread
_threads_lock = Lock()


class _RootKey(Protocol):
    """What python-pkcs11 puts together at run time, from the attributes of the key that it found."""

    def wrap_key(self, key: object, *, mechanism: Mechanism) -> bytes: ...

    def unwrap_key(
        self,
        object_class: ObjectClass,
        key_type: KeyType,
        key_data: bytes,
        *,
        mechanism: Mechanism,
        template: dict[Attribute, object],
    ) -> "_RootKey": ...

    def __getitem__(self, name: Attribute) -> object: ...

    def destroy(self) -> None: ...


class TokenRefuses(Exception):
    """The token is well and does not do it: what was handed to it is at fault."""


class RootOnToken:
    """The AES-256 root key that ``key_id`` names. Safe to call from several threads."""

    def __init__(self, settings: TokenSettings, pin_file: Path, key_id: bytes) -> None:
        """Touches nothing; :meth:`open`, :meth:`generate` or :meth:`destroy` do."""
        self._settings = settings
        self._pin_file = pin_file
        self._key_id = key_id
        self._thread = _thread_of(str(settings.library))
        self._session: Session | None = None
        self._root: _RootKey | None = None
        self._pin_refused = False
        self.maker = ""

    # --- from any thread -----------------------------------------------------------------------------------------

    def open(self) -> None:
        """Raises ``Unavailable`` (``key_provider_unavailable``) when the token is away, ``ConfigurationError``
        (``token_library_unusable``, ``token_pin_refused``, ``token_ambiguous``, ``root_key_missing``,
        ``root_key_extractable``) for what waiting does not mend, and what reading the PIN raises."""
        self._run(self._connect)

    def reach(self) -> None:
        """Log in, and nothing else. Raises as :meth:`open`, but for what it says of the root key."""
        self._run(lambda: self._on_new_session(lambda _: None, writing=True))

    def generate(self, label: str) -> None:
        """A new key under ``key_id`` that cannot leave the token. Raises as :meth:`open`."""
        self._run(lambda: self._generate(label))

    def destroy(self) -> None:
        """C_DestroyObject; a key that is not there any more is fine. Raises as :meth:`open`."""
        self._run(self._destroy)

    def wrap(self, key: bytes) -> bytes:
        """AES key wrap (RFC 3394) on the token: 32 bytes become 40. Raises ``Unavailable``."""
        try:
            return self._run(lambda: self._use(lambda session, root: _wrapped(session, root, key)))
        except TokenRefuses:
            raise _away("the token does not wrap") from None
        except ConfigurationError as refused:
            raise _away(refused.detail) from None

    def unwrap(self, wrapped: bytes) -> bytes:
        """Raises :class:`TokenRefuses` for bytes that :meth:`wrap` did not give, and ``Unavailable``."""
        try:
            return self._run(lambda: self._use(lambda _, root: _unwrapped(root, wrapped)))
        except ConfigurationError as refused:
            raise _away(refused.detail) from None

    def probe(self) -> None:
        """Wrap and unwrap once, with a new session when that is needed. Raises ``Unavailable``."""
        try:
            self._run(lambda: self._use(_probe))
        except TokenRefuses:
            raise _away("the token does not unwrap") from None
        except ConfigurationError as refused:
            raise _away(refused.detail) from None

    def close(self) -> None:
        try:
            self._run(self._drop)
        except Unavailable:
            return  # the token hangs: its session ends with the process

    def _run(self, work: Callable[[], T]) -> T:
        try:
            return self._thread.call(work, seconds=self._settings.timeout_s)
        except TookTooLong:
            raise _away("the token does not answer") from None

    # --- in the library's thread -----------------------------------------------------------------------------------

    def _use(self, work: Callable[[Session, _RootKey], T]) -> T:
        """``work``, and once more on a new session when it failed: sessions end when a token goes, or logs out."""
        if self._session is not None and self._root is not None:
            try:
                return work(self._session, self._root)
            except _value_faults:
                raise TokenRefuses from None
            except pkcs11.PKCS11Error:
                pass  # SoftHSM says CKR_GENERAL_ERROR for a damaged value and for a lost token alike
        self._connect()
        assert self._session is not None
        assert self._root is not None
        try:
            return work(self._session, self._root)
        except pkcs11.PKCS11Error:
            with suppress(pkcs11.PKCS11Error):
                _probe(self._session, self._root)
                raise TokenRefuses from None
            raise _away("the token went away") from None

    def _connect(self) -> None:
        """A session, logged in, with the root key found and tried."""
        self._on_new_session(self._adopt, writing=False)

    def _adopt(self, session: Session) -> None:
        root = self._found(session)
        if root is None:
            raise ConfigurationError("the token has no such root key", code="root_key_missing")
        if not root[Attribute.SENSITIVE] or root[Attribute.EXTRACTABLE]:
            raise ConfigurationError("the root key can leave its token", code="root_key_extractable")
        _probe(session, root)
        self._root = root

    def _on_new_session(self, work: Callable[[Session], None], *, writing: bool) -> None:
        for fresh in (False, True):  # a library looks for tokens when it is initialised; doing so ends all sessions
            self._drop()
            try:
                self._session = self._login(fresh=fresh, writing=writing)
                work(self._session)
            except pkcs11.PKCS11Error:
                continue
            return
        self._drop()
        raise _away("the token cannot be reached, or does not do what is asked")

    def _login(self, *, fresh: bool, writing: bool) -> Session:
        if self._pin_refused:  # tokens lock after a few wrong ones, so it is asked once in a process' life
            _refuse_pin()
        token = self._present(fresh=fresh)
        self.maker = token.manufacturer_id
        pin = read_credential(self._pin_file, "token PIN")
        try:
            return token.open(rw=writing, user_pin=pin.decode())
        except UnicodeDecodeError:
            raise ConfigurationError("the token PIN is not UTF-8", code="credential_invalid") from None
        except pkcs11.UserAlreadyLoggedIn:  # a login is the process': another provider on this token has it
            return token.open(rw=writing)
        except _pin_refusals:
            self._pin_refused = True
            _refuse_pin()
        finally:
            pin[:] = bytes(len(pin))

    def _present(self, *, fresh: bool) -> Token:
        library = str(self._settings.library)
        try:
            loaded = pkcs11.lib(library)
        except pkcs11.PKCS11Error as fault:
            if type(fault) is not pkcs11.PKCS11Error:  # the library's own word, not the loader's
                raise
            raise ConfigurationError(f"{library} is no usable PKCS#11 library", code="token_library_unusable") from None
        if fresh:
            loaded.reinitialize()
        wanted: dict[str, object] = {"token_label": self._settings.token_label}
        if self._settings.token_serial is not None:
            wanted["token_serial"] = self._settings.token_serial.encode()
        try:
            return loaded.get_token(**wanted)
        except pkcs11.MultipleTokensReturned:
            raise ConfigurationError("two tokens have this label: name keys.pkcs11.token_serial", code="token_ambiguous") from None  # fmt: skip

    def _generate(self, label: str) -> None:
        def made(session: Session) -> None:
            session.generate_key(
                KeyType.AES,
                key_bytes * 8,
                id=self._key_id,
                label=label,
                store=True,
                capabilities=MechanismFlag.WRAP | MechanismFlag.UNWRAP,
                template={
                    Attribute.PRIVATE: True,
                    Attribute.SENSITIVE: True,
                    Attribute.EXTRACTABLE: False,
                    Attribute.MODIFIABLE: False,
                },
            )

        self._on_new_session(made, writing=True)
        self._drop()

    def _destroy(self) -> None:
        def destroyed(session: Session) -> None:
            root = self._found(session)
            if root is not None:
                root.destroy()

        self._on_new_session(destroyed, writing=True)
        self._drop()

    def _found(self, session: Session) -> _RootKey | None:
        wanted = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.ID: self._key_id}
        for found in session.get_objects(wanted):
            if isinstance(found, WrapMixin) and isinstance(found, UnwrapMixin):
                return cast("_RootKey", found)
        return None

    def _drop(self) -> None:
        session, self._session, self._root = self._session, None, None
        if session is not None:
            with suppress(pkcs11.PKCS11Error):  # it ended with its token
                session.close()


def _wrapped(session: Session, root: _RootKey, key: bytes) -> bytes:
    """The key becomes an object of the session, since C_WrapKey takes a handle; the object is gone on return."""
    template = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.KEY_TYPE: KeyType.AES, Attribute.VALUE: key}
    passing = session.create_object(template | _passing)
    try:
        return root.wrap_key(passing, mechanism=Mechanism.AES_KEY_WRAP)
    finally:
        passing.destroy()


def _unwrapped(root: _RootKey, wrapped: bytes) -> bytes:
    passing = root.unwrap_key(
        ObjectClass.SECRET_KEY, KeyType.AES, wrapped, mechanism=Mechanism.AES_KEY_WRAP, template=_passing
    )
    try:
        value = passing[Attribute.VALUE]
        assert isinstance(value, bytes)
        return value
    finally:
        passing.destroy()


def _probe(session: Session, root: _RootKey) -> None:
    key = secrets.token_bytes(key_bytes)
    if _unwrapped(root, _wrapped(session, root, key)) != key:
        raise _away("the token does not give back what it was given")


def _thread_of(library: str) -> Bounded:
    with _threads_lock:
        if library not in _threads:
            _threads[library] = Bounded(f"pkcs11 {library}")
        return _threads[library]


def _away(detail: str) -> Unavailable:
    return Unavailable(detail, code="key_provider_unavailable")


def _refuse_pin() -> NoReturn:
    raise ConfigurationError(
        "the token refuses its PIN; it is not asked again before a restart, since tokens lock", code="token_pin_refused"
    )
