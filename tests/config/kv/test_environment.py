"""Consul's own variables, read as Consul's own tools read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbproxy.config.kv.environment import access


@pytest.mark.parametrize(
    ("environ", "address"),
    [
        ({}, "http://127.0.0.1:8500"),
        ({"CONSUL_HTTP_ADDR": ""}, "http://127.0.0.1:8500"),
        ({"CONSUL_HTTP_ADDR": "10.0.0.1:8500"}, "http://10.0.0.1:8500"),
        ({"CONSUL_HTTP_ADDR": "http://consul.internal:8500"}, "http://consul.internal:8500"),
        ({"CONSUL_HTTP_ADDR": "https://consul.internal:8501"}, "https://consul.internal:8501"),
        ({"CONSUL_HTTP_ADDR": "10.0.0.1:8501", "CONSUL_HTTP_SSL": "true"}, "https://10.0.0.1:8501"),
        ({"CONSUL_HTTP_ADDR": "http://10.0.0.1:8501", "CONSUL_HTTP_SSL": "1"}, "https://10.0.0.1:8501"),
        ({"CONSUL_HTTP_SSL": "false"}, "http://127.0.0.1:8500"),
        ({"CONSUL_HTTP_ADDR": "unix:///run/consul.sock"}, "unix:/run/consul.sock"),
    ],
)
def test_the_address_is_the_one_that_consul_s_tools_would_use(environ: dict[str, str], address: str) -> None:
    assert access(environ).address == address


def test_tokens_and_tls_are_taken_over(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from the file\n")
    found = access(
        {
            "CONSUL_HTTP_TOKEN": "from the environment",
            "CONSUL_HTTP_TOKEN_FILE": str(file),
            "CONSUL_CACERT": "/ca.pem",
            "CONSUL_CLIENT_CERT": "/cert.pem",
            "CONSUL_CLIENT_KEY": "/key.pem",
            "CONSUL_TLS_SERVER_NAME": "server.dc1.consul",
            "CONSUL_HTTP_SSL_VERIFY": "false",
            "CONSUL_NAMESPACE": "team",
            "CONSUL_PARTITION": "part",
        }
    )
    assert found.token is not None
    assert found.token.reveal() == "from the file"
    tls = found.tls
    assert (tls.ca, tls.certificate, tls.key) == (Path("/ca.pem"), Path("/cert.pem"), Path("/key.pem"))
    assert (tls.server_name, tls.verify) == ("server.dc1.consul", False)
    assert (found.namespace, found.partition) == ("team", "part")
    alone = access({"CONSUL_HTTP_TOKEN": "from the environment"}).token
    assert alone is not None
    assert alone.reveal() == "from the environment"
    assert "environment" not in repr(alone)


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("CONSUL_HTTP_ADDR", "ftp://x:1", "expected http://host or https://host"),
        ("CONSUL_HTTP_ADDR", "http://", "expected http://host or https://host"),
        ("CONSUL_HTTP_ADDR", "http://user:secret@x:1", "credentials do not stand in a URL"),
        ("CONSUL_HTTP_SSL", "yes", "'yes' is neither true nor false"),
        ("CONSUL_HTTP_SSL_VERIFY", "no", "'no' is neither true nor false"),
        ("CONSUL_HTTP_AUTH", "user:secret", "basic authentication is not supported"),
        ("CONSUL_CAPATH", "/etc/ca", "a folder of authorities is not supported"),
    ],
)
def test_what_cannot_be_followed_is_told_by_its_name_and_not_by_its_secret(
    name: str, text: str, what: str
) -> None:
    with pytest.raises(ValueError, match=what) as caught:
        access({name: text})
    assert str(caught.value).startswith(f"{name}: ")
    assert "secret" not in str(caught.value)
