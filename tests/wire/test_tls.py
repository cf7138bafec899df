"""TLS towards servers: whom we trust, and who we are."""

from __future__ import annotations

import os
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest

from lbproxy.wire.tls import ClientTls
from lbproxy.wire.tls_options import TlsOptions
from tests.servers.certificates import Authority

pytestmark = pytest.mark.foreign  # openssl makes the certificates


def test_an_authority_of_ones_own_is_read_and_need_not_have_every_extension(authority: Authority) -> None:
    context = ClientTls(TlsOptions(ca=authority.ca)).context()
    (found,) = context.get_ca_certs()
    assert "lbproxy test authority" in str(found["subject"])
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT


def test_the_files_are_read_again_when_one_of_them_has_changed(authority: Authority, tmp_path: Path) -> None:
    ours = authority.sign("client")
    tls = ClientTls(TlsOptions(ca=authority.ca, certificate=ours.certificate, key=ours.key))
    first = tls.context()
    assert tls.context() is first
    other = authority.sign("other")
    os.replace(other.key, ours.key)
    with pytest.raises(ssl.SSLError):  # its certificate is still the old one
        tls.context()
    os.replace(other.certificate, ours.certificate)
    assert tls.context() is not first


async def test_the_loop_reads_no_file_itself(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    tls, readers = ClientTls(TlsOptions(ca=authority.ca)), set[int]()
    make = ssl.create_default_context

    def noted(*args: Any, **options: Any) -> ssl.SSLContext:
        readers.add(threading.get_ident())
        return make(*args, **options)

    monkeypatch.setattr(ssl, "create_default_context", noted)
    context = await tls.context_at_hand()
    assert len(readers) == 1
    assert threading.get_ident() not in readers
    assert await tls.context_at_hand() is context


@pytest.mark.parametrize("text", ["", "no certificate"])
def test_a_file_that_holds_nothing_of_use_is_an_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "ca.crt"
    file.write_text(text)
    with pytest.raises(OSError):
        ClientTls(TlsOptions(ca=file)).context()
    with pytest.raises(OSError):
        ClientTls(TlsOptions(ca=tmp_path / "missing.crt")).context()


def test_any_certificate_is_taken_only_where_that_is_asked_for() -> None:
    context = ClientTls(TlsOptions(verify=False)).context()
    assert context.verify_mode is ssl.CERT_NONE
    assert not context.check_hostname
