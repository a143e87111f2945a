// npm json-rpc-2.0, unmodified.
const { check, connect } = require("./job.cjs");

check(connect(process.argv[2]).call).then(
  () => { console.log("ok"); process.exit(0); },
  (e) => { console.error(e); process.exit(1); },
);
