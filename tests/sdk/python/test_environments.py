"""Environments: conformance checks 27 to 32."""

from __future__ import annotations

import anthropic
import pytest
from anthropic.types.beta import (
    BetaEnvironmentArchivedError,
    BetaInvalidConfigTypeChangeError,
    BetaInvalidMetadataError,
)

NO_PACKAGES = {"type": "packages", "apt": [], "cargo": [], "gem": [], "go": [], "npm": [], "pip": []}


def test_27_a_cloud_config_is_fully_populated(client):
    config = {"type": "cloud", "packages": {"pip": ["pandas==2.2.0"]}}
    environment = client.beta.environments.create(name="e", config=config)
    assert environment.id.startswith("env_")
    assert (environment.type, environment.description, environment.metadata) == ("environment", None, {})
    assert environment.archived_at is None
    assert environment.config.to_dict() == {
        "type": "cloud",
        "networking": {"type": "unrestricted"},
        "packages": NO_PACKAGES | {"pip": ["pandas==2.2.0"]},
    }
    assert client.beta.environments.retrieve(environment.id) == environment


def test_27_without_a_config_it_is_cloud(client):
    config = client.beta.environments.create(name="e").config.to_dict()
    assert config == {"type": "cloud", "networking": {"type": "unrestricted"}, "packages": NO_PACKAGES}


def test_28_limited_networking_keeps_hosts_and_flags(client):
    networking = {"type": "limited", "allowed_hosts": ["api.example.com", "*.example.org"], "allow_mcp_servers": True}
    environment = client.beta.environments.create(name="e", config={"type": "cloud", "networking": networking})
    expected = networking | {"allow_package_managers": False}
    assert environment.config.networking.to_dict() == expected
    updated = client.beta.environments.update(environment.id, config={"type": "cloud", "packages": {}})
    assert updated.config.networking.to_dict() == expected


def test_28_hosts_are_names_and_packages_need_their_managers(client):
    for config in [
        {"type": "cloud", "networking": {"type": "limited", "allowed_hosts": ["https://example.com"]}},
        {"type": "cloud", "networking": {"type": "limited"}, "packages": {"pip": ["pandas"]}},
    ]:
        with pytest.raises(anthropic.BadRequestError):
            client.beta.environments.create(name="e", config=config)


def test_29_the_type_cannot_be_changed(client):
    environment = client.beta.environments.create(name="e", config={"type": "cloud"})
    with pytest.raises(BetaInvalidConfigTypeChangeError):
        client.beta.environments.update(environment.id, config={"type": "self_hosted"})
    assert client.beta.environments.retrieve(environment.id) == environment


def test_30_an_archived_environment_cannot_be_changed(client, make_agent):
    environment = client.beta.environments.create(name="e")
    archived = client.beta.environments.archive(environment.id)
    assert archived.archived_at is not None
    assert client.beta.environments.archive(environment.id).archived_at == archived.archived_at
    with pytest.raises(BetaEnvironmentArchivedError):
        client.beta.environments.update(environment.id, name="x")
    with pytest.raises(anthropic.BadRequestError):
        client.beta.sessions.create(agent=make_agent().id, environment_id=environment.id)
    listed = {one.id for one in client.beta.environments.list(limit=100)}
    everything = {one.id for one in client.beta.environments.list(limit=100, include_archived=True)}
    assert environment.id in everything - listed


def test_31_a_deleted_environment_is_gone(client):
    environment = client.beta.environments.create(name="e")
    deleted = client.beta.environments.delete(environment.id)
    assert (deleted.id, deleted.type) == (environment.id, "environment_deleted")
    with pytest.raises(anthropic.NotFoundError):
        client.beta.environments.retrieve(environment.id)


def test_32_metadata_has_limits(client):
    metadata = {str(number): "x" for number in range(17)}
    with pytest.raises(BetaInvalidMetadataError):
        client.beta.environments.create(name="e", metadata=metadata)
    environment = client.beta.environments.create(name="e", metadata={"a": "1", "b": "1"})
    with pytest.raises(BetaInvalidMetadataError):
        client.beta.environments.update(environment.id, metadata=metadata)
    patched = client.beta.environments.update(environment.id, metadata={"a": None, "b": "", "c": "1"})
    assert patched.metadata == {"c": "1"}
