// npm json-rpc-2.0, which leaves the transport to its user: a line each way.
const net = require("node:net");
const readline = require("node:readline");
const { JSONRPCClient } = require("json-rpc-2.0");
const { check } = require("./job.cjs");

const socket = net.connect(process.argv[2]);
const client = new JSONRPCClient((request) => socket.write(JSON.stringify(request) + "\n"));
readline.createInterface({ input: socket }).on("line", (line) => client.receive(JSON.parse(line)));

check((method, params) => client.request(method, params)).then(
  () => { console.log("ok"); process.exit(0); },
  (e) => { console.error(e); process.exit(1); },
);
