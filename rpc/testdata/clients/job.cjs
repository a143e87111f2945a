// What each client does: make a session, keep a state, list, restore, meet an error.
const assert = require("node:assert");
const net = require("node:net");
const readline = require("node:readline");
const { JSONRPCClient } = require("json-rpc-2.0");

const state = { turn: 3, text: "zwölf Boxkämpfer \u{1f600}", list: [1, 2.5, null] };

async function check(call) {
  const session = await call("session.create", { name: "foreign" });
  const made = await call("checkpoint.create", { session_id: session.id, message: "one", tags: ["a"], state });
  const list = await call("checkpoint.list", { session_id: session.id });
  assert.deepStrictEqual(list.checkpoints.map((c) => c.id), [made.checkpoint_id]);
  const back = await call("checkpoint.restore", { session_id: session.id, checkpoint_id: made.checkpoint_id });
  assert.deepStrictEqual(back.state, state);
  await assert.rejects(call("checkpoint.get", { checkpoint_id: session.id }), (e) => {
    assert.strictEqual(e.code, -32001);
    assert.strictEqual(e.data.kind, "not_found");
    return true;
  });
  return session.id;
}

// connect is npm json-rpc-2.0, which leaves the transport to its user: a line each way.
function connect(path) {
  const socket = net.connect(path);
  const client = new JSONRPCClient((request) => socket.write(JSON.stringify(request) + "\n"));
  readline.createInterface({ input: socket }).on("line", (line) => client.receive(JSON.parse(line)));
  return { call: (method, params) => client.request(method, params) };
}

module.exports = { check, connect, state };
