// Keeps documents with LangGraph's SqliteSaver for as long as each line of standard input
// asks ("workers bytes seconds") and answers with a line of JSON: rate, p50, p99 (ms).
import { createInterface } from "node:readline";
import { SqliteSaver } from "@langchain/langgraph-checkpoint-sqlite";
import { emptyCheckpoint, uuid6 } from "@langchain/langgraph-checkpoint";

const saver = SqliteSaver.fromConnString(process.argv[2]);
saver.setup();
saver.db.pragma("synchronous = FULL");

let thread = 0;

async function worker(id, size, until, times) {
  let n = 0;
  let parent;
  while (performance.now() < until) {
    const text = (String(id) + ":" + n).padEnd(size, "abcdefghijklmnopqrstuvwxyz 0123456789 ");
    const checkpoint = { ...emptyCheckpoint(), id: uuid6(n++), channel_values: { messages: text } };
    const config = { configurable: { thread_id: "t" + id, checkpoint_ns: "", checkpoint_id: parent } };
    const start = performance.now();
    const next = await saver.put(config, checkpoint, { source: "loop", step: n, parents: {} });
    times.push(performance.now() - start);
    parent = next.configurable.checkpoint_id;
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const [workers, size, seconds] = line.split(" ").map(Number);
  const times = [];
  const start = performance.now();
  const until = start + seconds * 1000;
  await Promise.all(Array.from({ length: workers }, () => worker(thread++, size, until, times)));
  const took = (performance.now() - start) / 1000;
  times.sort((a, b) => a - b);
  const at = (q) => times[Math.min(times.length - 1, Math.floor(times.length * q))];
  console.log(JSON.stringify({ rate: times.length / took, p50: at(0.5), p99: at(0.99) }));
}
