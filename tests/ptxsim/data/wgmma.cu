// wgmma by inline assembly on operands that threads store to shared memory.
// nvcc -ptx -arch=sm_90a wgmma.cu
#include <cstdint>
#include <cuda_bf16.h>

__device__ uint32_t shared(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

__device__ uint64_t describe(const void *p, uint32_t leading, uint32_t stride, uint64_t mode) {
  return (uint64_t)((shared(p) & 0x3ffff) >> 4) | (uint64_t)(leading >> 4) << 16 |
         (uint64_t)(stride >> 4) << 32 | mode << 62;
}

__device__ void fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ void proxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
__device__ void finish() {
  asm volatile("wgmma.commit_group.sync.aligned;\n\twgmma.wait_group.sync.aligned 0;" ::: "memory");
}

#define D8 "{%0,%1,%2,%3,%4,%5,%6,%7}"
#define ACC "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7])

// The accumulators of m64n16 to a row-major [64, 16] result.
__device__ void store(const float *d, float *out) {
  int w = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  for (int i = 0; i < 8; i++)
    out[(16 * w + g + 8 * (i / 2 % 2)) * 16 + 8 * (i / 4) + 2 * t + i % 2] = d[i];
}

// A [64, 64] and B [16, 64] K-major under a swizzle of 128 bytes: D = A B^T, K in 4 steps.
extern "C" __global__ void wgmma_swizzled(const uint4 *a, const uint4 *b, float *out) {
  __shared__ alignas(1024) uint4 sa[64][8], sb[16][8];
  for (int i = threadIdx.x; i < 512; i += 128) sa[i / 8][i % 8 ^ i / 8 % 8] = a[i];
  for (int i = threadIdx.x; i < 128; i += 128) sb[i / 8][i % 8 ^ i / 8 % 8] = b[i];
  proxy();
  __syncthreads();
  float d[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  uint64_t da = describe(sa, 16, 1024, 1), db = describe(sb, 16, 1024, 1);
  fence();
  for (int k = 0; k < 4; k++)
    asm volatile("{.reg .pred p; setp.ne.b32 p, %10, 0;\n\t"
                 "wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 " D8
                 ", %8, %9, p, 1, -1, 0, 0;}" : ACC : "l"(da + 2 * k), "l"(db + 2 * k), "r"(k));
  finish();
  store(d, out);
}

// A [16, 64] M-major and B [16, 16] N-major (both [k][line] in memory), no swizzle: D = A^T B.
extern "C" __global__ void wgmma_transposed(const uint4 *a, const uint4 *b, float *out) {
  __shared__ alignas(128) uint4 sa[8][2][8], sb[2][2][8];  // [8 lines][8 of k][k]
  for (int i = threadIdx.x; i < 128; i += 128) sa[i % 8][i / 8 / 8][i / 8 % 8] = a[i];
  for (int i = threadIdx.x; i < 32; i += 128) sb[i % 2][i / 2 / 8][i / 2 % 8] = b[i];
  proxy();
  __syncthreads();
  float d[8];
  for (int i = 0; i < 8; i++) d[i] = 100.0f;
  fence();
  asm volatile("wgmma.mma_async.sync.aligned.m64n16k16.f32.f16.f16 " D8
               ", %8, %9, 1, -1, 1, 1, 1;" : ACC
               : "l"(describe(sa, 128, 256, 0)), "l"(describe(sb, 128, 256, 0)));
  finish();
  store(d, out);
}

// A [64, 16] in registers, B [16, 16] K-major without a swizzle: D = A B^T.
extern "C" __global__ void wgmma_registers(const uint32_t *a, const uint4 *b, float *out) {
  __shared__ alignas(128) uint4 sb[2][2][8];  // [8 lines][8 of k][line]
  for (int i = threadIdx.x; i < 32; i += 128) sb[i / 2 / 8][i % 2][i / 2 % 8] = b[i];
  proxy();
  __syncthreads();
  int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  float d[8] = {1, 1, 1, 1, 1, 1, 1, 1};
  fence();
  asm volatile("wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 " D8
               ", {%8,%9,%10,%11}, %12, 0, 1, 1, 0;" : ACC
               : "r"(a[row * 8 + t]), "r"(a[(row + 8) * 8 + t]), "r"(a[row * 8 + t + 4]),
                 "r"(a[(row + 8) * 8 + t + 4]), "l"(describe(sb, 128, 256, 0)));
  finish();
  store(d, out);
}
