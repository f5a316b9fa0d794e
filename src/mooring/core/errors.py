"""The error tree. Each error names a situation; `api.errors` maps each to HTTP in one table.

MooringError
├── InvalidRequest            the request itself cannot be served
│   ├── PromptTooLong         more tokens than the model's context holds
│   ├── ContextExpired        the cache was named after its end, without a new lifetime
│   ├── ContextFailed         the cache was named, but its prefill had failed
│   └── ContextMissed         the cache does not apply, and the request insists on it
├── NotAuthenticated          no key
├── AuthenticationFailed      a key nobody issued
├── PermissionDenied          not from here, or not with this key
├── NotFound
│   ├── ContextNotFound       no such cache (for this tenant)
│   ├── TagNotFound           no such tag (for this tenant)
│   ├── FileNotFound          no such file (for this tenant)
│   ├── RequestNotFound       no charge for such a request (of this tenant)
│   ├── TenantNotFound        no such tenant (for an operator)
│   ├── KeyNotFound           no such key (for an operator)
│   ├── WorkerNotFound        no such worker (for an operator)
│   └── ModelNotFound         no such model or alias
├── QuotaExceeded             the tenant has used up what it may have
├── RateLimited               the tenant uses more at once, or in a while, than it may
├── Overloaded                try again later
│   └── StorageFull           the disk cannot hold what should be kept
├── EngineFailed              the engine broke while serving the request
│   ├── EngineLost            its process ended under the request; the next one may succeed
│   └── EngineUnavailable     its process cannot be started, for now
├── RegistryFailed            the database cannot be used
│   ├── RegistryBusy          others hold it
│   └── RegistryUnavailable   it is away, for now
└── StartRefused              the server must not start like this
    ├── ModelUnreadable       the model file is missing, broken or of a family we do not serve
    └── DataDirBusy           another server works in this data directory
"""

from collections.abc import Mapping

from mooring.core.miss import Miss


class MooringError(Exception):
    """Base of everything Mooring raises on purpose; `str(error)` is fit for the client."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        """The request field at fault, where one is."""


class InvalidRequest(MooringError):
    """The request contradicts the contract; the message says which field and the way out."""


class PromptTooLong(InvalidRequest):
    """The rendered prompt (and the room for the answer) exceeds the context."""


class ContextExpired(InvalidRequest):
    """The cache's `expired_at` has passed and the request brings no `reset_ttl`."""


class ContextFailed(InvalidRequest):
    """The cache is in status `error`."""


class ContextMissed(InvalidRequest):
    """The cache does not apply to the request, which refuses to be served without it."""

    def __init__(self, miss: Miss) -> None:
        super().__init__(f"the cache does not apply: {miss}")
        self.miss = miss


class NotAuthenticated(MooringError):
    """There is no bearer key where one is needed."""


class AuthenticationFailed(MooringError):
    """The bearer key is unknown."""


class PermissionDenied(MooringError):
    """Whoever asks may not."""


class NotFound(MooringError):
    """Something named in the request does not exist for this tenant."""


class ContextNotFound(NotFound):
    """No cache with this id."""

    def __init__(self, cache_id: str, *, param: str | None = None) -> None:
        super().__init__(f"no cache with the id {cache_id!r}", param=param)


class TagNotFound(NotFound):
    """No tag with this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no tag with the name {name!r}", param="tag")


class FileNotFound(NotFound):
    """No file with this id."""

    def __init__(self, file_id: str) -> None:
        super().__init__(f"no file with the id {file_id!r}", param="file_id")


class RequestNotFound(NotFound):
    """Nothing was charged under this id."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"nothing was charged for a request with the id {request_id!r}")


class TenantNotFound(NotFound):
    """No tenant with this id."""

    def __init__(self, tenant_id: str) -> None:
        super().__init__(f"no tenant with the id {tenant_id!r}: make it first", param="tenant")


class KeyNotFound(NotFound):
    """No key with this id."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"no key with the id {key_id!r}", param="key_id")


class WorkerNotFound(NotFound):
    """No worker at this address."""

    def __init__(self, url: str) -> None:
        super().__init__(f"no worker at {url!r}: use its URL as it is configured", param="url")


class ModelNotFound(NotFound):
    """No model or alias with this name."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(
            f"the model {name!r} is not served here; these are: {', '.join(known)}", param="model"
        )


class QuotaExceeded(MooringError):
    """A tenant's limit on what it keeps or spends is reached; waiting does not help."""


class RateLimited(MooringError):
    """A tenant's limit on what it does in a while is reached; waiting helps."""

    def __init__(
        self, message: str, *, retry_after_s: float, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.headers = dict(headers or {})


class Overloaded(MooringError):
    """All queues are full; the same request may succeed later."""


class StorageFull(Overloaded):
    """No room on disk for KV bytes or for the registry."""


class EngineFailed(MooringError):
    """The native library returned an error, or the decode thread ended."""


class EngineLost(EngineFailed):
    """The engine's process, or its worker, ended under the request; the same one may succeed."""


class EngineUnavailable(EngineFailed):
    """The engine's process could not be started several times, or no worker is up; tried again."""


class RegistryFailed(MooringError):
    """The database returned an error; nothing of the transaction remains."""


class RegistryBusy(RegistryFailed):
    """Others have been writing to the database for too long; the same request may succeed later."""


class RegistryUnavailable(RegistryFailed):
    """The database cannot be reached; the same request may succeed later."""


class StartRefused(MooringError):
    """Starting would be wrong; the message says what to change."""


class ModelUnreadable(StartRefused):
    """The GGUF cannot be loaded or belongs to a family that is not served."""


class DataDirBusy(StartRefused):
    """The data directory is locked by a living process."""
