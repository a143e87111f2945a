// Keeps documents with LangGraph's SqliteSaver for as long as each line of standard input
// asks ("workers bytes seconds") and answers with a line of JSON: rate, p50, p99 (ms).
// "list count bytes" keeps that many in one thread and answers with p50, the time of reading
// them all back, newest first.
import { createInterface } from "node:readline";
import { SqliteSaver } from "@langchain/langgraph-checkpoint-sqlite";
import { emptyCheckpoint, uuid6 } from "@langchain/langgraph-checkpoint";

const saver = SqliteSaver.fromConnString(process.argv[2]);
saver.setup();
saver.db.pragma("synchronous = FULL");

let thread = 0;

// messages are those of the other contenders' documents: about 110 bytes each.
function messages(id, n, size) {
  const all = [];
  for (let bytes = 0; bytes < size - 110; bytes += 110) {
    all.push({ role: "tool", n: all.length, text: `${id}:${n}:${all.length} `.padEnd(76, "reads the file storage error return nil ") });
  }
  return all;
}

async function worker(id, size, times, more) {
  let n = 0;
  let parent;
  while (more(n)) {
    const checkpoint = { ...emptyCheckpoint(), id: uuid6(n++), channel_values: { messages: messages(id, n, size) } };
    const config = { configurable: { thread_id: "t" + id, checkpoint_ns: "", checkpoint_id: parent } };
    const start = performance.now();
    const next = await saver.put(config, checkpoint, { source: "loop", step: n, parents: {} });
    times.push(performance.now() - start);
    parent = next.configurable.checkpoint_id;
  }
}

async function list(count, size) {
  const id = thread++;
  await worker(id, size, [], (n) => n < count);
  const times = [];
  for (let round = 0; round < 5; round++) {
    const start = performance.now();
    let read = 0;
    for await (const kept of saver.list({ configurable: { thread_id: "t" + id } })) read += kept.checkpoint ? 1 : 0;
    if (read !== count) throw new Error(`${read} of ${count} came back`);
    times.push(performance.now() - start);
  }
  return times.sort((a, b) => a - b)[2];
}

for await (const line of createInterface({ input: process.stdin })) {
  if (line.startsWith("list ")) {
    console.log(JSON.stringify({ rate: 0, p50: await list(...line.split(" ").slice(1).map(Number)), p99: 0 }));
    continue;
  }
  const [workers, size, seconds] = line.split(" ").map(Number);
  const times = [];
  const start = performance.now();
  const until = start + seconds * 1000;
  await Promise.all(Array.from({ length: workers }, () => worker(thread++, size, times, () => performance.now() < until)));
  const took = (performance.now() - start) / 1000;
  times.sort((a, b) => a - b);
  const at = (q) => times[Math.min(times.length - 1, Math.floor(times.length * q))];
  console.log(JSON.stringify({ rate: times.length / took, p50: at(0.5), p99: at(0.99) }));
}
