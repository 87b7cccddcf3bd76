/** Keeps all files of one build, under the digest of their contents, and answers from them: online or not. */

declare const VERSION: string;
declare const FILES: string[];

const scope = self as unknown as ServiceWorkerGlobalScope;
const PREFIX = "adpet-";
const CACHE = `${PREFIX}${VERSION}`;

scope.addEventListener("install", (event) => event.waitUntil(keepAll()));

scope.addEventListener("activate", (event) =>
  event.waitUntil(removeOlder().then(() => scope.clients.claim())),
);

scope.addEventListener("message", (event) => {
  if (event.data === "take over") void scope.skipWaiting();
});

scope.addEventListener("fetch", (event) => {
  if (event.request.method === "GET" && new URL(event.request.url).origin === scope.location.origin) {
    event.respondWith(kept(event.request));
  }
});

async function keepAll(): Promise<void> {
  const cache = await caches.open(CACHE);
  // Asks again for what the browser may hold of an earlier build.
  await cache.addAll(["./", ...FILES].map((file) => new Request(file, { cache: "no-cache" })));
}

async function removeOlder(): Promise<void> {
  const names = await caches.keys();
  const older = names.filter((name) => name.startsWith(PREFIX) && name !== CACHE);
  await Promise.all(older.map((name) => caches.delete(name)));
}

async function kept(request: Request): Promise<Response> {
  const cache = await caches.open(CACHE);
  return (await cache.match(request, { ignoreSearch: true })) ?? fetch(request);
}
