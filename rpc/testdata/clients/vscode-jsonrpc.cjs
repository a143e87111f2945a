// npm vscode-jsonrpc over the framing of language servers, in both directions: the daemon
// asks it for the session's state, and sends it events.
const net = require("node:net");
const assert = require("node:assert");
const rpc = require("vscode-jsonrpc/node");
const { check } = require("./job.cjs");

const socket = net.connect(process.argv[2]);
const connection = rpc.createMessageConnection(new rpc.SocketMessageReader(socket), new rpc.SocketMessageWriter(socket));
const asked = [];
const events = [];
connection.onRequest("state.capture", (params) => { asked.push(params); return { state: { asked: params.cause } }; });
const created = new Promise((resolve) => connection.onNotification("event", (params) => {
  events.push(params.event);
  if (params.event.cause === "tool_call") resolve();
}));
connection.listen();

(async () => {
  const call = (method, params) => connection.sendRequest(method, params);
  const session = await check(call);
  assert.ok((await connection.sendRequest("daemon.info")).pid > 0); // with no params at all
  await call("events.subscribe", { session_id: session });
  await call("session.attach", { session_id: session, provides_state: true });
  await call("auto.enable", { session_id: session, config: { on_tool_call: true, interval_seconds: 0 } });
  const taken = await call("auto.trigger", { session_id: session, cause: "tool_call" });
  assert.deepStrictEqual(asked, [{ session_id: session, cause: "tool_call" }]);
  const got = await call("checkpoint.get", { checkpoint_id: taken.checkpoint_id });
  assert.deepStrictEqual(got.state, { asked: "tool_call" });
  assert.strictEqual(got.context.state_source, "attached");
  await created;
  assert.ok(events.some((e) => e.checkpoint_id === taken.checkpoint_id));
  await call("session.close", { session_id: session });
  console.log("ok");
  process.exit(0);
})().catch((e) => { console.error(e); process.exit(1); });
