// What rpc.discover answers, held to OpenRPC's own schema by ajv; and each schema in it is
// one that ajv can use.
const Ajv = require("ajv");
const assert = require("node:assert");
const { connect } = require("./job.cjs");
const openrpc = require("@open-rpc/meta-schema").default;
const jsonSchema = require("@json-schema-tools/meta-schema").default;

const ajv = new Ajv({ strict: false, validateFormats: false });
// Both are draft 7 and give it a name that ajv does not know; the one refers to the other
// with and without the slash at the end of its id.
for (const id of ["https://meta.json-schema.tools", "https://meta.json-schema.tools/"]) {
  ajv.addSchema({ ...jsonSchema, $schema: undefined, $id: undefined }, id);
}
const holds = ajv.compile({ ...openrpc, $schema: undefined });

const { call } = connect(process.argv[2]);
(async () => {
  const doc = await call("rpc.discover", {});
  assert.ok(holds(doc), JSON.stringify(holds.errors, null, 1));
  assert.ok(doc.methods.length > 30);
  const strict = new Ajv({ strict: true, validateFormats: false, allowUnionTypes: true });
  const schemas = Object.values(doc.components.schemas);
  for (const method of [...doc.methods, ...doc["x-client-methods"]]) {
    assert.ok(holds({ ...doc, methods: [method] }), method.name);
    schemas.push(method.result.schema, ...method.params.map((p) => p.schema));
  }
  for (const schema of schemas) strict.compile(schema);
  for (const spoil of [(d) => delete d.info, (d) => { d.methods[0].surplus = 1; }, (d) => { d.methods[0].params = {}; }]) {
    const bad = structuredClone(doc);
    spoil(bad);
    assert.ok(!holds(bad), "the schema takes anything: " + spoil);
  }
  console.log("ok");
  process.exit(0);
})().catch((e) => { console.error(e); process.exit(1); });
