// Asynchronous copies and barriers of the CUDA headers.
// nvcc -ptx -arch=sm_80 pipeline.cu
#include <cooperative_groups.h>
#include <cooperative_groups/memcpy_async.h>
#include <cuda/barrier>
#include <cuda_pipeline.h>

namespace cg = cooperative_groups;
using barrier = cuda::barrier<cuda::thread_scope_block>;

// Two stages of 16-byte copies by the primitives: out[i] = sum of in[i], in[i + n], ...
extern "C" __global__ void pipeline_primitives(const float4 *in, float4 *out, int n, int rows) {
  __shared__ float4 stage[2][64];
  int i = blockIdx.x * 64 + threadIdx.x;
  __pipeline_memcpy_async(&stage[0][threadIdx.x], &in[i], 16);
  __pipeline_commit();
  float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll 1
  for (int r = 0; r < rows; r++) {
    if (r + 1 < rows)
      __pipeline_memcpy_async(&stage[(r + 1) & 1][threadIdx.x], &in[(r + 1) * n + i], 16);
    __pipeline_commit();
    __pipeline_wait_prior(1);
    __syncthreads();
    float4 v = stage[r & 1][threadIdx.x ^ 1];  // a neighbour's copy
    sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
    __syncthreads();
  }
  out[i ^ 1] = sum;
}

// Copies with zero fill: the last `zeros` bytes of 16 are not read.
extern "C" __global__ void pipeline_zfill(const float4 *in, float4 *out, int zeros) {
  __shared__ float4 stage[32];
  __pipeline_memcpy_async(&stage[threadIdx.x], &in[threadIdx.x], 16, threadIdx.x < 4 ? zeros : 0);
  __pipeline_commit();
  __pipeline_wait_prior(0);
  __syncthreads();
  out[threadIdx.x] = stage[threadIdx.x ^ 1];
}

// A barrier on which copies arrive (cp.async.mbarrier.arrive), its phases reused.
extern "C" __global__ void pipeline_barrier(const int *in, int *out, int rounds) {
  __shared__ int stage[128];
  __shared__ barrier ready, free;
  if (threadIdx.x == 0) {
    init(&ready, 128);
    init(&free, 128);
  }
  __syncthreads();
  int sum = 0;
#pragma unroll 1
  for (int r = 0; r < rounds; r++) {
    cuda::memcpy_async(&stage[threadIdx.x], &in[r * 128 + threadIdx.x], sizeof(int), ready);
    ready.arrive_and_wait();
    sum += stage[127 - threadIdx.x] * (r + 1);
    free.arrive_and_wait();
  }
  out[threadIdx.x] = sum;
}

// Producer and consumer halves of a block with split arrive and wait; tokens pass through.
extern "C" __global__ void barrier_halves(const int *in, int *out, int rounds) {
  __shared__ int value[32];
  __shared__ barrier full, empty;
  if (threadIdx.x == 0) {
    init(&full, 64);
    init(&empty, 64);
  }
  __syncthreads();
  if (threadIdx.x < 32) {
#pragma unroll 1
    for (int r = 0; r < rounds; r++) {
      empty.arrive_and_wait();
      value[threadIdx.x] = in[r * 32 + threadIdx.x];
      barrier::arrival_token token = full.arrive();
      (void)token;
    }
  } else {
    int sum = 0;
    barrier::arrival_token token = empty.arrive();
#pragma unroll 1
    for (int r = 0; r < rounds; r++) {
      full.wait(full.arrive());
      sum = sum * 3 + value[63 - threadIdx.x];
      token = empty.arrive();
    }
    out[threadIdx.x - 32] = sum;
  }
}

// A group copies a row at once.
extern "C" __global__ void group_copy(const char *in, char *out, int bytes) {
  extern __shared__ char rows[];
  cg::thread_block block = cg::this_thread_block();
  cg::memcpy_async(block, rows, in, bytes);
  cg::wait(block);
#pragma unroll 1
  for (int i = threadIdx.x; i < bytes; i += blockDim.x) out[i] = rows[bytes - 1 - i];
}
