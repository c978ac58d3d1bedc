"use strict";
// Bytes out of an element: a gzip stream, seven bits in each character; letters() of pages/__init__.py writes it.

function bytesOf(text) {
  const bytes = new Uint8Array(Math.floor(text.length * 7 / 8));
  let bits = 0, waiting = 0, at = 0; // the last bits that were read, and how many of them no byte has yet
  for (let i = 0; i < text.length; i++) {
    bits = ((bits << 7) | (text.charCodeAt(i) & 127)) & 0x7fff;
    waiting += 7;
    if (waiting >= 8) bytes[at++] = bits >> (waiting -= 8);
  }
  return bytes;
}

async function unpacked(text) {
  if (typeof DecompressionStream === "undefined") {
    throw new Error("This browser cannot unpack this page. Use Firefox 113, Safari 16.4, Chrome 80, or a later one.");
  }
  const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
  try {
    return new Uint8Array(await new Response(stream).arrayBuffer());
  } catch {
    throw new Error("This file is damaged. Take a whole copy of it.");
  }
}

// As zlib.crc32.
function crc32(bytes) {
  let sum = -1;
  for (const byte of bytes) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit++) sum = (sum >>> 1) ^ (sum & 1 ? 0xedb88320 : 0);
  }
  return ~sum >>> 0;
}
