// Compares a schema with what clients were promised, and documents with the schema:
//
//     node check.mjs PROMISED SCHEMA [DOCUMENT …]
//
// Prints one JSON object; exits with 1 when something breaks a client. Dangerous changes, such as a
// new value of an enum, are listed and pass: clients must expect them.
import { readFileSync } from "node:fs";

import { diff, validate } from "@graphql-inspector/core";
import { buildSchema, Source } from "graphql";

const [promisedPath, schemaPath, ...documentPaths] = process.argv.slice(2);
const read = (path) => readFileSync(path, "utf8");
const schema = buildSchema(read(schemaPath));

const changes = await diff(buildSchema(read(promisedPath)), schema);
const ofLevel = (level) =>
  changes
    .filter((change) => change.criticality.level === level)
    .map(({ path, message }) => ({ path, message }));

// Documents are checked together, since they may share fragments.
const sources = documentPaths.map((path) => new Source(read(path), path));
const invalid = validate(schema, sources).flatMap(({ source, errors, deprecated }) =>
  [...errors, ...deprecated].map(({ message }) => ({ path: source.name, message })),
);

const report = { breaking: ofLevel("BREAKING"), dangerous: ofLevel("DANGEROUS"), invalid };
console.log(JSON.stringify(report, null, 2));
process.exitCode = report.breaking.length + report.invalid.length > 0 ? 1 : 0;
