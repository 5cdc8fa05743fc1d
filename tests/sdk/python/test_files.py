"""Files: conformance checks 85 to 87, and files as resources of sessions."""

from __future__ import annotations

import hashlib

import anthropic
import pytest
from anthropic.types import FileNotDownloadableError

from support import eventually, message, text

FILE_BYTES_MAX = 500_000_000
# What a service may grow by while it handles them: far less than one of them has.
MEMORY_BYTES_MAX = 50_000_000


def test_85_a_file_comes_and_goes(client):
    file = client.beta.files.upload(file=("report.csv", b"a,b\n1,2\n", "text/csv"))
    assert file.id.startswith("file_")
    assert (file.type, file.filename, file.mime_type, file.size_bytes) == ("file", "report.csv", "text/csv", 8)
    assert client.beta.files.retrieve_metadata(file.id) == file
    assert client.files.retrieve_metadata(file.id).to_dict() == file.to_dict()
    assert file.id in {one.id for one in client.beta.files.list(limit=100)}
    deleted = client.beta.files.delete(file.id)
    assert (deleted.id, deleted.type) == (file.id, "file_deleted")
    for gone in (client.beta.files.retrieve_metadata, client.beta.files.download, client.beta.files.delete):
        with pytest.raises(anthropic.NotFoundError):
            gone(file.id)
    assert file.id not in {one.id for one in client.beta.files.list(limit=1000)}


def test_85_names_are_without_their_path(client):
    assert client.beta.files.upload(file=("../etc/passwd", b"x")).filename == "passwd"


def test_85_files_are_listed_newest_first_page_by_page(client):
    made = [client.beta.files.upload(file=(f"{n}.txt", b"x")).id for n in range(5)]
    page = client.beta.files.list(limit=2)
    listed: list[str] = []
    while True:
        listed += [file.id for file in page.data]
        if not page.has_next_page() or set(made) <= set(listed):
            break
        page = page.get_next_page()
    assert [one for one in listed if one in made] == made[::-1]
    named = client.beta.files.list(ids=[made[0], "file_none", made[3]])
    assert {file.id for file in named.data} == {made[0], made[3]}


def test_86_what_was_uploaded_is_not_handed_out(client):
    file = client.beta.files.upload(file=("a.bin", b"\x00\xff"))
    assert file.downloadable is False
    with pytest.raises(FileNotDownloadableError):
        client.beta.files.download(file.id)


@pytest.mark.timeout(240)
def test_86_87_half_a_gigabyte_goes_in_without_being_held_and_much_comes_out_whole(service, tmp_path):
    client, session = service.client.with_options(timeout=200), service.session()
    session.say("hello")
    before = service.memory_bytes()
    large = tmp_path / "large.bin"
    with open(large, "wb") as file:
        file.truncate(FILE_BYTES_MAX)
    with open(large, "rb") as file:
        uploaded = client.beta.files.upload(file=("large.bin", file))
    assert uploaded.size_bytes == FILE_BYTES_MAX
    with open(large, "ab") as file:
        file.write(b"x")
    with open(large, "rb") as file, pytest.raises(anthropic.ContentTooLargeError):
        client.beta.files.upload(file=("larger.bin", file))
    large.unlink()
    grown = service.memory_bytes("VmHWM") - before
    assert grown < MEMORY_BYTES_MAX, f"at its highest it had {grown} bytes more"
    session.bash("head -c 40000000 /dev/urandom | tee /mnt/session/outputs/out.bin | sha256sum > sum")
    [file] = eventually(lambda: list(client.beta.files.list(scope_id=session.id)), bool, seconds=60)
    digest = hashlib.sha256()
    with client.beta.files.with_streaming_response.download(file.id) as answer:
        for chunk in answer.iter_bytes():
            digest.update(chunk)
    assert text(session.bash("cut -d ' ' -f 1 sum")).strip() == digest.hexdigest()


def test_87_what_a_session_leaves_is_a_file_of_its_own(client, session, make_session):
    session.bash("mkdir -p /mnt/session/outputs/deep && printf 'a\\0b' > /mnt/session/outputs/deep/result.bin")
    session.bash("echo one > /mnt/session/outputs/note.txt")
    # They are collected when the session has come to rest, and no event tells when that is done.
    outputs = lambda: {file.filename: file for file in client.beta.files.list(scope_id=session.id)}
    files = eventually(outputs, lambda files: len(files) == 2)
    assert files.keys() == {"result.bin", "note.txt"}
    for file in files.values():
        assert (file.scope.type, file.scope.id, file.downloadable) == ("session", session.id, True)
    assert client.beta.files.download(files["result.bin"].id).read() == b"a\x00b"
    assert client.beta.files.download(files["note.txt"].id).read() == b"one\n"
    assert list(client.beta.files.list(scope_id=make_session().id)) == []
    client.beta.sessions.delete(session.id)
    assert list(client.beta.files.list(scope_id=session.id)) == []
    with pytest.raises(anthropic.NotFoundError):
        client.beta.files.retrieve_metadata(files["note.txt"].id)


def test_a_file_is_mounted_read_only_in_the_session(client, make_session):
    content = b"x,y\n" + b"1,2\n" * 100_000
    file = client.beta.files.upload(file=("data.csv", content))
    resources = [
        {"type": "file", "file_id": file.id},
        {"type": "file", "file_id": file.id, "mount_path": "/mnt/session/uploads/in/data.csv"},
    ]
    session = make_session(resources=resources)
    own, placed = session.created.resources
    assert own.type == "file" and own.id.startswith("sesrsc_")
    assert own.mount_path == f"/mnt/session/uploads/{file.id}"
    assert placed.mount_path == "/mnt/session/uploads/in/data.csv"
    assert file.id not in {own.file_id, placed.file_id}, "the session has a copy under an id of its own"
    assert text(session.bash(f"wc -c < {own.mount_path}; cmp {own.mount_path} {placed.mount_path}")) == "400004\n"
    assert session.bash(f"echo more >> {placed.mount_path}").is_error
    client.beta.files.delete(file.id)
    assert text(session.bash(f"head -n 1 {placed.mount_path}")) == "x,y\n"


def test_resources_are_listed_added_and_removed(client, session):
    resources = client.beta.sessions.resources
    file = client.beta.files.upload(file=("late.txt", b"late\n"))
    assert list(resources.list(session.id)) == []
    added = resources.add(session.id, type="file", file_id=file.id, mount_path="/mnt/session/uploads/late.txt")
    assert added.type == "file" and added.mount_path == "/mnt/session/uploads/late.txt"
    assert [one.id for one in resources.list(session.id)] == [added.id]
    assert resources.retrieve(added.id, session_id=session.id).to_dict() == added.to_dict()
    assert [one.id for one in session.get().resources] == [added.id]
    assert text(session.bash("cat /mnt/session/uploads/late.txt")) == "late\n"
    removed = resources.delete(added.id, session_id=session.id)
    assert (removed.id, removed.type) == (added.id, "session_resource_deleted")
    assert list(resources.list(session.id)) == []


def test_a_session_needs_the_files_that_it_names(client, make_agent, environment):
    agent = make_agent()
    for resource in [
        {"type": "file", "file_id": "file_none"},
        {"type": "file", "file_id": "file_none", "mount_path": "relative/path"},
    ]:
        with pytest.raises(anthropic.APIStatusError) as refused:
            client.beta.sessions.create(
                agent=agent.id,
                environment_id=environment.id,
                resources=[resource],
                initial_events=[message("hello")],
            )
        assert refused.value.status_code in {400, 404}
    assert list(client.beta.sessions.list(agent_id=agent.id)) == []
