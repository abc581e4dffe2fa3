/** Reads zip archives whose entries are stored, not compressed, without copying them (PKWARE APPNOTE 4.3). */

import { Refusal } from "./client.js";

const END = 0x06054b50;
const END_BYTES = 22;
const LONGEST_COMMENT = 0xffff;
const ENTRY = 0x02014b50;
const ENTRY_BYTES = 46;
const LOCAL = 0x04034b50;
const LOCAL_BYTES = 30;

/**
 * Name -> Blob of `type`, for each entry of the archive; a blob is a slice of it.
 * Throws a Refusal if it is no archive of stored entries.
 */
export async function storedEntries(archive, type) {
  try {
    const { count, offset, size } = await directory(archive);
    const view = await read(archive, offset, size);
    const entries = new Map();
    for (let at = 0, index = 0; index < count; index += 1) {
      const entry = directoryEntry(view, at);
      entries.set(entry.name, await content(archive, entry, type));
      at += entry.bytes;
    }
    return entries;
  } catch (error) {
    throw new Refusal("The server's answer is not a whole archive of stored pictures.", { cause: error });
  }
}

/** Where the list of entries is: it is named at the end, before a comment of any length. */
async function directory(archive) {
  const start = Math.max(0, archive.size - END_BYTES - LONGEST_COMMENT);
  const view = await read(archive, start, archive.size - start);
  let at = view.byteLength - END_BYTES;
  while (at > 0 && view.getUint32(at, true) !== END) at -= 1;
  expect(view.getUint32(at, true) === END, "no end");
  return { count: view.getUint16(at + 10, true), size: view.getUint32(at + 12, true), offset: view.getUint32(at + 16, true) };
}

function directoryEntry(view, at) {
  expect(view.getUint32(at, true) === ENTRY, "no entry");
  expect(view.getUint16(at + 10, true) === 0, "a compressed entry");
  const [name, extra, comment] = [28, 30, 32].map((field) => view.getUint16(at + field, true));
  const letters = new Uint8Array(view.buffer, view.byteOffset + at + ENTRY_BYTES, name);
  return {
    name: new TextDecoder().decode(letters),
    size: view.getUint32(at + 24, true),
    offset: view.getUint32(at + 42, true),
    bytes: ENTRY_BYTES + name + extra + comment,
  };
}

async function content(archive, { offset, size }, type) {
  const view = await read(archive, offset, LOCAL_BYTES);
  expect(view.getUint32(0, true) === LOCAL, "no local header");
  const start = offset + LOCAL_BYTES + view.getUint16(26, true) + view.getUint16(28, true);
  expect(start + size <= archive.size, "a cut entry");
  return archive.slice(start, start + size, type);
}

async function read(archive, start, size) {
  return new DataView(await archive.slice(start, start + size).arrayBuffer());
}

function expect(holds, problem) {
  if (!holds) throw new RangeError(problem);
}
