"""Create TLS settings that trust the certificate authorities of the system and of certifi, as pip does.

``SSL_CERT_FILE`` replaces these authorities with those in a file. ``SSL_CERT_DIR`` replaces them with those in a
folder, and is ignored if ``SSL_CERT_FILE`` is set. httpx and httpx2 treat these variables in the same way:
https://www.python-httpx.org/environment_variables/.

truststore verifies certificates with the functions of Windows and macOS. On other systems, OpenSSL verifies them.
truststore only finds the system's authorities. There, it reads all of them again for each connection
(https://github.com/sethmlarson/truststore/issues/212). It is therefore used only if OpenSSL does not find them itself.
"""

from __future__ import annotations

import os
import ssl
import sys

from ..._imports import third_party_import_lock
from ..errors import FailedRequestError

_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def create_tls_context() -> ssl.SSLContext:
    """Return the TLS settings for our own client. Reading all authorities takes some hundredths of a second.

    Raises:
        FailedRequestError: if the authorities that the environment names cannot be read.
    """
    for variable in _VARIABLES:
        if path := os.environ.get(variable):
            return _create_named_context(variable, path)
    context = _create_system_context()
    with third_party_import_lock:
        try:
            import certifi
        except ImportError:
            return context  # httpx depends on certifi, but httpx2 does not
    try:
        context.load_verify_locations(certifi.where())
    except OSError:
        pass  # certifi is damaged. The system's authorities remain.
    return context


def _create_named_context(variable: str, path: str) -> ssl.SSLContext:
    try:
        if variable == "SSL_CERT_FILE":
            context = ssl.create_default_context(cafile=path)
        else:
            context = ssl.create_default_context(capath=path)
    except OSError as error:
        raise FailedRequestError(
            f"cannot read the certificates in {variable}={path}: {error.strerror or type(error).__name__}",
            is_transient=False,
            hint=f"Correct {variable}, or remove it to trust the authorities of the system.",
        ) from error
    return _accept_private_authorities(context)


def _create_system_context() -> ssl.SSLContext:
    if sys.platform not in {"win32", "darwin"}:
        context = ssl.create_default_context()
        # OpenSSL does not count authorities in a folder, because it reads them only when they are needed.
        if context.cert_store_stats()["x509_ca"]:
            return _accept_private_authorities(context)
    with third_party_import_lock:
        try:
            import truststore
        except (ImportError, OSError, AttributeError):
            # Python has no ctypes, or the system lacks one of the functions that truststore calls.
            return _accept_private_authorities(ssl.create_default_context())
    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _accept_private_authorities(context: ssl.SSLContext) -> ssl.SSLContext:
    """Accept certificates that violate details of RFC 5280, although Python 3.13 and later refuse them by default.

    Many private authorities issue such certificates, and pip accepts them: https://github.com/python/cpython/issues/107361.
    """
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
