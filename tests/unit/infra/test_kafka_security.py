"""How clients prove themselves to Kafka: read from the environment, said to each library, shown to nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.kafka_security import KafkaSecurity, librdkafka
from infra.settings import Settings, SettingsError
from tests.certificates import Authority

SCRAM = {
    "DRIFTLOG_KAFKA_SECURITY": "SASL_PLAINTEXT",
    "DRIFTLOG_KAFKA_USERNAME": "ann",
    "DRIFTLOG_KAFKA_PASSWORD": "open-sesame",
}


def test_without_settings_connections_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SCRAM:
        monkeypatch.delenv(name, raising=False)
    plain = KafkaSecurity.from_env({})
    assert plain.librdkafka() == {} and plain.faust() == {}
    assert plain.aiokafka() == {"security_protocol": "PLAINTEXT"}
    assert plain.context() is None
    assert librdkafka("b:1") == {"bootstrap.servers": "b:1"}


def test_each_library_hears_the_same_in_its_own_words(tmp_path: Path) -> None:
    ca = Authority(tmp_path).ca
    made = KafkaSecurity.from_env(
        SCRAM | {"DRIFTLOG_KAFKA_SECURITY": "sasl_ssl", "DRIFTLOG_KAFKA_CA": str(ca)}
    )
    assert made.librdkafka() == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "ann",
        "sasl.password": "open-sesame",
        "ssl.ca.location": str(ca),
    }
    said = made.aiokafka()
    assert said["sasl_plain_password"] == "open-sesame"
    assert said["ssl_context"].verify_mode.name == "CERT_REQUIRED"
    credentials = made.faust()["broker_credentials"]
    assert credentials.protocol.value == "SASL_SSL"
    assert credentials.mechanism.value == "SCRAM-SHA-512"
    assert (credentials.username, credentials.password) == ("ann", "open-sesame")


def test_tls_alone_and_with_a_certificate_of_the_client(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.pair("client")
    env = {"SECURITY": "SSL", "CA": str(authority.ca), "CERT": str(pair.cert), "KEY": str(pair.key)}
    made = KafkaSecurity.from_env({f"DRIFTLOG_KAFKA_{name}": v for name, v in env.items()})
    assert made.librdkafka()["ssl.certificate.location"] == str(pair.cert)
    assert made.aiokafka()["security_protocol"] == "SSL"
    assert made.faust()["broker_credentials"].context is not None


def test_a_password_may_lie_in_a_file_and_is_shown_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("open-sesame\n")
    env = {**SCRAM, "DRIFTLOG_KAFKA_PASSWORD": "", "DRIFTLOG_KAFKA_PASSWORD_FILE": str(file)}
    made = KafkaSecurity.from_env(env)
    assert made.password == "open-sesame"
    assert "open-sesame" not in repr(made)
    settings = Settings.from_env(env)
    assert "open-sesame" not in repr(settings) + str(settings.to_env())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"SECURITY": "TLS"}, "SECURITY='TLS': one of PLAINTEXT"),
        ({"SASL_MECHANISM": "GSSAPI"}, "SASL_MECHANISM='GSSAPI'"),
        ({"PASSWORD": ""}, "needs DRIFTLOG_KAFKA_USERNAME"),
        ({"SECURITY": "SSL"}, "does not use it"),
        ({"CA": "/nowhere.pem"}, "no such file"),
        ({"PASSWORD": "", "PASSWORD_FILE": "/nowhere"}, "PASSWORD_FILE"),
    ],
)
def test_what_cannot_work_is_refused_by_name_and_without_the_password(
    changes: dict[str, str], said: str
) -> None:
    env = SCRAM | {f"DRIFTLOG_KAFKA_{name}": value for name, value in changes.items()}
    with pytest.raises(SettingsError, match=said) as caught:
        KafkaSecurity.from_env(env)
    assert "open-sesame" not in str(caught.value)
