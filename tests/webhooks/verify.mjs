// Verifies received webhooks with other people's code: node verify.mjs FILE. FILE is that of verify.py. v1 is verified by the
// package standardwebhooks, v1a by Node's own crypto. Prints what verified how many.
import crypto from "node:crypto";
import fs from "node:fs";
import { createRequire } from "node:module";

const given = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const keys = (prefix) => given.keys.filter((key) => key.startsWith(prefix));
if (given.received.length === 0) throw new Error("nothing was received");

const spki = Buffer.from("302a300506032b6570032100", "hex"); // RFC 8410: an Ed25519 key of 32 bytes follows
for (const { headers, body } of given.received) {
    const content = Buffer.from(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.${body}`);
    const signatures = headers["webhook-signature"].split(" ").filter((part) => part.startsWith("v1a,"));
    for (const key of keys("whpk_")) {
        const der = Buffer.concat([spki, Buffer.from(key.slice(5), "base64")]);
        const publicKey = crypto.createPublicKey({ key: der, format: "der", type: "spki" });
        const verifies = (part) => crypto.verify(null, content, publicKey, Buffer.from(part.slice(4), "base64"));
        if (!signatures.some(verifies)) throw new Error("v1a by node:crypto");
    }
}
console.log("node:crypto", given.received.length);

let Webhook;
try {
    // From the folder that the second argument names, which is none of this project's.
    ({ Webhook } = createRequire(`${process.argv[3]}/x.js`)("standardwebhooks"));
} catch {
    process.exit(0);
}
for (const { headers, body } of given.received) {
    for (const key of keys("whsec_")) new Webhook(key).verify(body, headers);
}
console.log("standardwebhooks", given.received.length);
