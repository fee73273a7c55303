// The peer of `commands_emmett`: emmett's command handler on its MongoDB event store, each account a stream.
//
//   node commands.js '{"url": "mongodb://…/database", "accounts": 20000, "tasks": 64}'
//
// Opens the accounts and prints "ready". Then it reads one line of JSON per round, {"warm_up_ms", "measured_ms"},
// lets that many tasks deposit on random accounts, each beginning its next command when the last one was
// acknowledged, and prints what they did as a line of JSON. Ends with its input.

import { createInterface } from "node:readline";
import { CommandHandler } from "@event-driven-io/emmett";
import { getMongoDBEventStore, toStreamName } from "@event-driven-io/emmett-mongodb";
import { MongoClient } from "mongodb";

const settings = JSON.parse(process.argv[2]);
/** How many accounts are opened at a time. */
const OPENED_AT_ONCE = 128;

/** An account of about 500 bytes, as the other side has it. */
const profile = (index) => ({
  owner: `John Doe the ${index}th`,
  email: `john.doe.${String(index).padStart(6, "0")}@example.com`,
  address: {
    street: `${index} Long Winding Road`,
    city: "Springfield",
    zip: String(index).padStart(5, "0"),
    country: "Republic of Somewhere",
  },
  tags: ["early adopter", "newsletter", "premium"],
  about:
    "Writes programs that keep documents and wants to know what happened to them, " +
    "in order and without a gap; has tried it by hand, twice.",
});

const initialState = () => ({ profile: null, balance: 0, deposits: 0, active: false });

const evolve = (account, event) => {
  switch (event.type) {
    case "AccountOpened":
      return { ...account, profile: event.data.profile, active: true };
    case "MoneyDeposited":
      return {
        ...account,
        balance: account.balance + event.data.amount,
        deposits: account.deposits + 1,
      };
    default:
      return account;
  }
};

const open = (profile) => (account) => {
  if (account.active) throw new Error("the account is open already");
  return { type: "AccountOpened", data: { profile } };
};

const deposit = (amount) => (account) => {
  if (!account.active) throw new Error("the account is not active");
  if (amount <= 0) throw new Error("the amount must be positive");
  return { type: "MoneyDeposited", data: { amount } };
};

// Where another writer was faster the store reports its own conflict, or that of the unique index over the
// stream names: its update is an upsert. Pauses as the package has them, but as often as it takes.
const isConflict = (error) => error.errorCode === 412 || error.code === 11000;
const handle = CommandHandler({
  evolve,
  initialState,
  retry: { retries: 20, minTimeout: 100, factor: 1.5, shouldRetryError: isConflict },
});

const stream = (index) => toStreamName("account", String(index).padStart(6, "0"));

/** Runs `work` in so many tasks; the first error ends all. */
const tasks = (count, work) => Promise.all(Array.from({ length: count }, (_, task) => work(task)));

const client = new MongoClient(settings.url, {
  maxPoolSize: settings.connections,
  writeConcern: { w: "majority" },
});
await client.connect();
const store = getMongoDBEventStore({ client });

let next = 0;
await tasks(OPENED_AT_ONCE, async () => {
  while (next < settings.accounts) {
    const index = next++;
    await handle(store, stream(index), open(profile(index)));
  }
});
console.log("ready");

const run = async ({ warm_up_ms, measured_ms }) => {
  const begin = performance.now() + warm_up_ms;
  const end = begin + measured_ms;
  const sample = { acknowledged: 0, measured: 0, seconds: measured_ms / 1000, latencies_us: [] };
  await tasks(settings.tasks, async () => {
    let started = performance.now();
    while (started < end) {
      const account = Math.floor(Math.random() * settings.accounts);
      const result = await handle(store, stream(account), deposit(1));
      if (result.newEvents.length !== 1) throw new Error("a deposit is one event");
      const ended = performance.now();
      sample.acknowledged += 1;
      if (begin <= ended && ended < end) {
        sample.measured += 1;
        sample.latencies_us.push((ended - started) * 1000);
      }
      started = ended;
    }
  });
  sample.latencies_us.sort((a, b) => a - b);
  return sample;
};

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await run(JSON.parse(line))));
}
await client.close();
