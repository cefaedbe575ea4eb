/* Weights: bytes of the page turned into numbers.
 *
 * Here: base64, a checksum, half precision, and the packed weights of few bits, as
 * `models/packed_linear.py` stores them. Not here: what the weights are for (`models.js`).
 */

/** Bytes of a base64 text: Uint8Array. */
function decodeBase64(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

/** CRC-32 of bytes, as zlib computes it: an unsigned integer. */
function checksum(bytes) {
  if (!checksum.table) {
    checksum.table = Int32Array.from({ length: 256 }, (_, value) => {
      for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
      return value;
    });
  }
  let crc = -1;
  for (let i = 0; i < bytes.length; i++) crc = checksum.table[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** Numbers of half precision, little-endian: (2 n bytes) -> Float32Array (n). */
function decodeFloat16(bytes) {
  const numbers = new Float32Array(bytes.length / 2);
  for (let i = 0; i < numbers.length; i++) {
    const bits = bytes[2 * i] | (bytes[2 * i + 1] << 8);
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    const size = exponent ? (1024 + fraction) * 2 ** (exponent - 25) : fraction * 2 ** -24;
    const value = exponent === 31 ? (fraction ? NaN : Infinity) : size;
    numbers[i] = bits & 0x8000 ? -value : value;
  }
  return numbers;
}

/** Numbers of single precision, little-endian: (4 n bytes) -> Float32Array (n). */
function decodeFloat32(bytes) {
  return new Float32Array(bytes.slice().buffer);
}

/** Weights of one bit, eight in a byte, lowest digit first: -1 or 1 each. */
function decodeBinary(bytes, count) {
  return Int8Array.from({ length: count }, (_, i) => 2 * ((bytes[i >> 3] >> (i & 7)) & 1) - 1);
}

/** Weights of 1.58 bits, five in a byte as digits in base 3, lowest first: -1, 0 or 1 each. */
function decodeTernary(bytes, count) {
  const codes = new Int8Array(bytes.length * 5);
  for (let i = 0, place = 0; i < bytes.length; i++) {
    let byte = bytes[i];
    for (let digit = 0; digit < 5; digit++) {
      codes[place++] = (byte % 3) - 1;
      byte = (byte / 3) | 0;
    }
  }
  return codes.subarray(0, count);
}

// How the numbers of a tensor are stored.
const DECODERS = {
  float32: decodeFloat32,
  float16: decodeFloat16,
  int8: (bytes) => new Int8Array(bytes.slice().buffer),
  ternary: decodeTernary,
  binary: decodeBinary,
};

/**
 * The tensors of a model, by the names that they have in Python, as nested objects:
 * `blocks.0.projection.weight` is `tensors.blocks[0].projection.weight`.
 *
 * `stored`: {tensors: [{name, shape, type, bytes}], checksum, base64}. Each tensor gets
 * its `shape`. Throws an error if the bytes are not those that were written.
 */
function decodeTensors(stored) {
  const bytes = decodeBytes(stored);
  const tensors = {};
  let start = 0;
  for (const { name, shape, type, bytes: length } of stored.tensors) {
    const count = shape.reduce((product, size) => product * size, 1);
    const numbers = DECODERS[type](bytes.subarray(start, start + length), count);
    numbers.shape = shape;
    placeByName(tensors, name.split("."), numbers);
    start += length;
  }
  return tensors;
}

/** The bytes of a model. Throws an error if they are not those that were written. */
function decodeBytes({ base64, checksum: written }) {
  const bytes = decodeBase64(base64);
  if (checksum(bytes) === written) return bytes;
  throw new Error("The weights in this file are damaged. Get the file again, whole.");
}

function placeByName(object, path, value) {
  const [first, ...rest] = path;
  if (!rest.length) {
    object[first] = value;
    return;
  }
  object[first] ??= /^\d+$/.test(rest[0]) ? [] : {};
  placeByName(object[first], rest, value);
}
