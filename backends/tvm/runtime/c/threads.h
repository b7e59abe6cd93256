/* A pool of threads that share parallel loops: they spin for a moment after each, then sleep.

   LVC_THREADS is 1 with POSIX threads and 0 without any; then everything runs on the caller's thread. LVC_LOCAL is
   empty where there is no storage local to a thread; then one call at a time may be under way of all models. */
#ifndef LVC_THREADS
#define LVC_THREADS 1
#endif
#ifndef LVC_LOCAL
#define LVC_LOCAL _Thread_local
#endif

typedef struct { void *unused; int32_t tasks; } lvc_group; /* TVMParallelGroupEnv */
typedef int (*lvc_task)(int32_t, lvc_group *, void *);

typedef struct {
  char *base;
  uint64_t used, size;
} lvc_scratch; /* what kernels allocate and free within a task, last first */

#if LVC_THREADS
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#define LVC_CLOSE_SPINS 200 /* turns without giving way to others */
#define LVC_SPINS 2000      /* all turns before it sleeps */

#if defined(__x86_64__) || defined(__i386__)
#define lvc_relax() __builtin_ia32_pause()
#elif defined(__aarch64__) || defined(__arm__)
#define lvc_relax() __asm__ volatile("yield")
#else
#define lvc_relax() ((void)0)
#endif

typedef struct lvc_pool lvc_pool;

typedef struct {
  lvc_pool *pool;
  int32_t number;
  lvc_scratch scratch;
  pthread_t thread;
} lvc_worker;

struct lvc_pool {
  pthread_mutex_t mutex;
  pthread_cond_t wake;
  atomic_uint round; /* counts loops; workers wait for it to change */
  atomic_int sleeping, running, failed, closing;
  lvc_task task;
  void *data;
  lvc_worker *workers;
  int32_t count, started; /* of all threads with the caller's; of those that were started */
};
#else
typedef struct { int32_t count; } lvc_pool;
#endif

/* whose loops this thread runs, and where it allocates: set for the time of a run */
static LVC_LOCAL lvc_pool *lvc_own_pool;
static LVC_LOCAL lvc_scratch *lvc_own_scratch;

#if LVC_THREADS
static void lvc_turn(int turn) {
  if (turn < LVC_CLOSE_SPINS) lvc_relax();
  else sched_yield();
}

static void lvc_await_round(lvc_pool *pool, unsigned last) {
  for (int turn = 0; turn < LVC_SPINS; turn++) {
    if (atomic_load_explicit(&pool->round, memory_order_acquire) != last) return;
    lvc_turn(turn);
  }
  pthread_mutex_lock(&pool->mutex);
  atomic_fetch_add(&pool->sleeping, 1);
  while (atomic_load(&pool->round) == last) pthread_cond_wait(&pool->wake, &pool->mutex);
  atomic_fetch_sub(&pool->sleeping, 1);
  pthread_mutex_unlock(&pool->mutex);
}

static void lvc_next_round(lvc_pool *pool) {
  atomic_fetch_add(&pool->round, 1);
  if (atomic_load(&pool->sleeping)) {
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
  }
}

static void *lvc_work(void *argument) {
  lvc_worker *worker = argument;
  lvc_pool *pool = worker->pool;
  lvc_own_scratch = &worker->scratch;
  for (unsigned round = 0;;) {
    lvc_await_round(pool, round++);
    if (atomic_load(&pool->closing)) return 0;
    lvc_group group = {0, pool->count};
    worker->scratch.used = 0;
    int failed = pool->task(worker->number, &group, pool->data);
    if (failed) atomic_store(&pool->failed, failed);
    atomic_fetch_sub_explicit(&pool->running, 1, memory_order_release);
  }
}

static int lvc_share(lvc_pool *pool, lvc_task task, void *data) {
  lvc_group group = {0, pool->count};
  pool->task = task;
  pool->data = data;
  atomic_store(&pool->failed, 0);
  atomic_store(&pool->running, pool->count - 1);
  lvc_next_round(pool);
  lvc_own_pool = 0; /* a loop within a task runs on its own thread */
  int failed = task(0, &group, data);
  lvc_own_pool = pool;
  for (int turn = 0; atomic_load_explicit(&pool->running, memory_order_acquire); turn++) lvc_turn(turn);
  return failed ? failed : atomic_load(&pool->failed);
}

static void lvc_pool_close(lvc_pool *pool) {
  atomic_store(&pool->closing, 1);
  lvc_next_round(pool);
  for (int32_t i = 0; i < pool->started; i++) pthread_join(pool->workers[i].thread, 0);
  pthread_cond_destroy(&pool->wake);
  pthread_mutex_destroy(&pool->mutex);
}

/* workers: room for one less than there are threads; scratch: so many bytes for each of them */
static int lvc_pool_open(lvc_pool *pool, int32_t threads, lvc_worker *workers, char *scratch, uint64_t bytes) {
  pool->count = threads;
  pool->workers = workers;
  if (pthread_mutex_init(&pool->mutex, 0)) return LVC_NO_THREADS;
  if (pthread_cond_init(&pool->wake, 0)) {
    pthread_mutex_destroy(&pool->mutex);
    return LVC_NO_THREADS;
  }
  for (int32_t i = 0; i < threads - 1; i++) {
    lvc_worker *worker = &workers[i];
    *worker = (lvc_worker){.pool = pool, .number = i + 1, .scratch = {scratch + (uint64_t)i * bytes, 0, bytes}};
    if (pthread_create(&worker->thread, 0, lvc_work, worker)) {
      lvc_pool_close(pool);
      return LVC_NO_THREADS;
    }
    pool->started++;
  }
  return LVC_OK;
}
#endif

/* what kernels call, through slots that TVM's code generator declares */

static int lvc_launch(lvc_task task, void *data, int32_t tasks) {
  lvc_group alone = {0, 1};
  (void)tasks;
#if LVC_THREADS
  if (lvc_own_pool) return lvc_share(lvc_own_pool, task, data);
#endif
  return task(0, &alone, data);
}

static void *lvc_allocate(int32_t kind, int32_t device, uint64_t bytes, int32_t code, int32_t bits) {
  lvc_scratch *scratch = lvc_own_scratch;
  uint64_t size = (bytes + LVC_ALIGNMENT - 1) / LVC_ALIGNMENT * LVC_ALIGNMENT;
  (void)kind, (void)device, (void)code, (void)bits;
  if (size > scratch->size - scratch->used) return 0;
  scratch->used += size;
  return scratch->base + scratch->used - size;
}

static int lvc_release(int32_t kind, int32_t device, void *block) {
  uint64_t begin = (uint64_t)((char *)block - lvc_own_scratch->base);
  (void)kind, (void)device;
  if (begin < lvc_own_scratch->used) lvc_own_scratch->used = begin;
  return 0;
}

#define LVC_HIDDEN __attribute__((visibility("hidden")))
LVC_HIDDEN int (*__TVMBackendParallelLaunch)(lvc_task, void *, int32_t) = lvc_launch;
LVC_HIDDEN void *(*__TVMBackendAllocWorkspace)(int32_t, int32_t, uint64_t, int32_t, int32_t) = lvc_allocate;
LVC_HIDDEN int (*__TVMBackendFreeWorkspace)(int32_t, int32_t, void *) = lvc_release;
