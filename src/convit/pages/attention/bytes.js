"use strict";
// Bytes out of an element: base64 of a gzip stream.

async function unpacked(text) {
  if (typeof DecompressionStream === "undefined") {
    throw new Error("This browser cannot unpack this page. Use Firefox 113, Safari 16.4, Chrome 80, or a later one.");
  }
  const letters = atob(text), packed = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) packed[i] = letters.charCodeAt(i); // from() takes half a second here
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
