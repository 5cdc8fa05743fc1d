// Checks 85 to 87, and files as resources of sessions.

import assert from "node:assert/strict";
import { test } from "node:test";

import Anthropic, { toFile } from "@anthropic-ai/sdk";

import { Session, client, collect, eventually, text } from "./support.mjs";

const upload = async (content, name, type) =>
  client.beta.files.upload({ file: await toFile(Buffer.from(content), name, { type }) });

test("85: a file comes and goes", async () => {
  const file = await upload("a,b\n", "data.csv", "text/csv");
  assert.deepEqual([file.type, file.filename, file.mime_type, file.size_bytes], ["file", "data.csv", "text/csv", 4]);
  assert.deepEqual(await client.beta.files.retrieveMetadata(file.id), file);
  assert.equal((await client.beta.files.delete(file.id)).type, "file_deleted");
  await assert.rejects(client.beta.files.retrieveMetadata(file.id), Anthropic.NotFoundError);
});

test("86: what was uploaded is not handed out", async () => {
  const file = await upload("secret", "a.txt", "text/plain");
  assert.equal(file.downloadable, false);
  await assert.rejects(client.beta.files.download(file.id), (error) => {
    assert(error instanceof Anthropic.BadRequestError);
    assert.equal(error.error.error.details.error_code, "file_not_downloadable");
    return true;
  });
});

test("87: a file goes in, and what the session makes of it comes out", async () => {
  const file = await upload("3\n1\n2\n", "numbers.txt", "text/plain");
  const session = await Session.create({
    resources: [{ type: "file", file_id: file.id, mount_path: "/mnt/session/uploads/numbers.txt" }],
  });
  const result = await session.bash(
    "sort /mnt/session/uploads/numbers.txt > /mnt/session/outputs/sorted.txt && echo sorted",
  );
  assert.equal(text(result), "sorted\n");
  const made = await eventually(
    async () => (await collect(client.beta.files.list({ scope_id: session.id }))).filter((one) => one.downloadable),
    (files) => files.length > 0,
  );
  assert.deepEqual(
    made.map((one) => [one.filename, one.scope.id]),
    [["sorted.txt", session.id]],
  );
  const content = await client.beta.files.download(made[0].id);
  assert.equal(await content.text(), "1\n2\n3\n");
});
