// npm jayson, unmodified: its TCP client on a path, a batch included.
const jayson = require("jayson/promise");
const { check, state } = require("./job.cjs");

const client = jayson.Client.tcp({ path: process.argv[2], delimiter: "\n" });
const call = async (method, params) => {
  const r = await client.request(method, params);
  if (r.error) throw Object.assign(new Error(r.error.message), r.error);
  return r.result;
};

(async () => {
  const session = await check(call);
  const batch = await client.request([
    client.request("checkpoint.create", { session_id: session, message: "in a batch", state }, undefined, false),
    client.request("session.get", { session_id: session }, undefined, false),
    client.request("daemon.info", {}, null, false),
  ]);
  if (batch.length !== 2 || batch.some((r) => r.error)) throw new Error("batch: " + JSON.stringify(batch));
  console.log("ok");
  process.exit(0);
})().catch((e) => { console.error(e); process.exit(1); });
