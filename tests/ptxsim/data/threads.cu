// What threads exchange, and how they branch: shuffles, votes, atomics, barriers, local arrays.
// nvcc -ptx -arch=sm_80 threads.cu
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
#include <cuda/atomic>

namespace cg = cooperative_groups;
#define ALL 0xffffffffu

__constant__ float weights[4] = {0.5f, -1.0f, 2.0f, 4.0f};
__device__ int visits[3] = {10, 20, 30};

// One row of results per kind of exchange, 32 lanes each.
extern "C" __global__ void exchange(const int *in, int *out) {
  int lane = threadIdx.x, v = in[lane], *row = out + lane;
  row[0] = __shfl_xor_sync(ALL, v, 5);
  row[32] = __shfl_up_sync(ALL, v, 3, 16);
  row[64] = __shfl_down_sync(ALL, v, 7, 8);
  row[96] = __shfl_sync(ALL, v, lane * 3 + 1, 16);
  row[128] = __ballot_sync(ALL, v > 50);
  row[160] = __any_sync(ALL, v == in[3]) + 2 * __all_sync(ALL, v >= 0);
  row[192] = __match_any_sync(ALL, v / 20);
  row[224] = __reduce_add_sync(ALL, v);
  row[256] = __reduce_max_sync(ALL, (unsigned)v);
  int odd = 0;
  if (lane & 1) odd = __popc(__activemask()) + __shfl_xor_sync(0xaaaaaaaau, v, 2);
  row[288] = odd;
  cg::thread_block_tile<8> tile = cg::tiled_partition<8>(cg::this_thread_block());
  row[320] = cg::reduce(tile, v, cg::less<int>());
}

// A block sums a row: shuffles, then shared memory, then one warp.
extern "C" __global__ void sum_rows(const float *in, float *out, int n) {
  __shared__ float part[32];
  float total = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) total += in[blockIdx.x * n + i];
  for (int d = 16; d; d /= 2) total += __shfl_down_sync(ALL, total, d);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = total;
  __syncthreads();
  if (threadIdx.x < 32) {
    total = threadIdx.x < blockDim.x / 32 ? part[threadIdx.x] : 0;
    for (int d = 16; d; d /= 2) total += __shfl_down_sync(ALL, total, d);
    if (threadIdx.x == 0) out[blockIdx.x] = total * weights[blockIdx.x % 4];
  }
}

// Atomics of all kinds; the old values of one counter are a permutation.
extern "C" __global__ void atomics(int *ints, float *floats, unsigned long long *wide, int *old) {
  __shared__ int local[2];
  int t = blockIdx.x * blockDim.x + threadIdx.x;
  if (threadIdx.x < 2) local[threadIdx.x] = 0;
  __syncthreads();
  old[t] = atomicAdd(&ints[0], 1);
  atomicMax(&ints[1], t * 7 % 101);
  atomicMin(&ints[2], t * 7 % 101);
  atomicXor(&ints[3], t);
  atomicInc((unsigned *)&ints[4], 9);
  atomicAdd(&floats[t % 3], 0.5f);
  atomicAdd(wide, 1ull << 33);
  atomicAdd(&local[t & 1], t);
  atomicAdd(&visits[t % 3], 1);
  int seen = ints[5], assumed;
  do {
    assumed = seen;
    seen = atomicCAS(&ints[5], assumed, assumed + 3);
  } while (seen != assumed);
  cuda::atomic_ref<int, cuda::thread_scope_device>(ints[6]).fetch_add(2);
  __syncthreads();
  if (threadIdx.x < 2) atomicAdd(&ints[7 + threadIdx.x], local[threadIdx.x]);
}

extern "C" __global__ void read_visits(int *out) { out[threadIdx.x] = visits[threadIdx.x]; }

// Loops of different lengths, early ends, a switch, an array in local memory.
extern "C" __global__ void diverge(const int *in, int *out, int n) {
  int t = blockIdx.x * blockDim.x + threadIdx.x;
  if (t >= n) return;
  int history[8];
  for (int i = 0; i < 8; i++) history[i] = 0;
  int v = in[t], steps = 0;
  while (v != 1 && steps < 100) {
    v = v & 1 ? 3 * v + 1 : v / 2;
    history[v & 7] += 1;
    steps++;
  }
  int extra;
  switch (in[t] % 7) {
    case 0: extra = steps * 3; break;
    case 1: extra = steps + 100; break;
    case 2: extra = history[2]; break;
    case 3: extra = history[in[t] & 7] - 5; break;
    case 4: extra = steps ^ 21; break;
    case 5: extra = -steps; break;
    default: extra = history[4] << 4; break;
  }
  out[t] = steps * 1000 + extra;
}

// Barriers that count.
extern "C" __global__ void votes(const int *in, int *out) {
  int v = in[threadIdx.x];
  out[threadIdx.x] = __syncthreads_count(v > 3);
  out[threadIdx.x] += 1000 * __syncthreads_or(v == 9);
  out[threadIdx.x] += 2000 * __syncthreads_and(v < 9);
}

// A ticket per block: the last of all adds what the others left.
extern "C" __global__ void last_block(const float *in, float *parts, unsigned *ticket, float *out) {
  __shared__ bool last;
  parts[blockIdx.x * blockDim.x + threadIdx.x] = in[blockIdx.x * blockDim.x + threadIdx.x] * 2;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(ticket, 1) == gridDim.x - 1;
  __syncthreads();
  if (last) {
    float sum = 0;
    for (int b = 0; b < gridDim.x; b++) sum += parts[b * blockDim.x + threadIdx.x];
    out[threadIdx.x] = sum;
  }
}
