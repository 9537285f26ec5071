// ldmatrix, stmatrix, movmatrix and mma by inline assembly, addressed as CUDA examples do.
// nvcc -ptx -arch=sm_90a mma.cu
#include <cstdint>

__device__ uint32_t shared(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

// D [16, 8] = A [16, 16] B [16, 8]: A by ldmatrix.x4, row-major B by ldmatrix.x2.trans.
extern "C" __global__ void mma_bf16(const uint4 *a, const uint4 *b, float2 *d) {
  __shared__ uint4 sa[16][2], sb[16];
  int lane = threadIdx.x;
  sa[lane / 2][lane % 2] = a[lane];
  if (lane < 16) sb[lane] = b[lane];
  __syncwarp();
  uint32_t ra[4], rb[2];
  float acc[4] = {0, 0, 0, 0};
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(ra[0]), "=r"(ra[1]), "=r"(ra[2]), "=r"(ra[3])
               : "r"(shared(&sa[lane % 16][lane / 16])));
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
               : "=r"(rb[0]), "=r"(rb[1])
               : "r"(shared(&sb[lane % 16])));
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
               "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
               : "r"(ra[0]), "r"(ra[1]), "r"(ra[2]), "r"(ra[3]), "r"(rb[0]), "r"(rb[1]));
  d[lane / 4 * 4 + lane % 4] = make_float2(acc[0], acc[1]);
  d[(lane / 4 + 8) * 4 + lane % 4] = make_float2(acc[2], acc[3]);
}

// Transpose of a 16 x 16 matrix of 16-bit elements: ldmatrix.x4.trans, then stmatrix.x4.
extern "C" __global__ void transpose(const uint4 *in, uint4 *out) {
  __shared__ uint4 tile[16][2], result[16][2];
  int lane = threadIdx.x, row = lane % 8, which = lane / 8;
  tile[lane / 2][lane % 2] = in[lane];
  __syncwarp();
  uint32_t r[4];
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared(&tile[8 * (which & 1) + row][which >> 1])));
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(
                   shared(&result[8 * (which >> 1) + row][which & 1])),
               "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
               : "memory");
  __syncwarp();
  out[lane] = result[lane / 2][lane % 2];
}

// movmatrix transposes in registers; stmatrix.trans transposes back.
extern "C" __global__ void there_and_back(const uint4 *in, uint4 *out) {
  __shared__ uint4 tile[8], moved[8], back[8];
  int lane = threadIdx.x;
  if (lane < 8) tile[lane] = in[lane];
  __syncwarp();
  uint32_t r, t;
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
               : "=r"(r) : "r"(shared(&tile[lane % 8])));
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(t) : "r"(r));
  asm volatile("stmatrix.sync.aligned.m8n8.x1.shared.b16 [%0], {%1};" ::"r"(
                   shared(&moved[lane % 8])), "r"(t) : "memory");
  asm volatile("stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%0], {%1};" ::"r"(
                   shared(&back[lane % 8])), "r"(t) : "memory");
  __syncwarp();
  if (lane < 8) out[lane] = moved[lane];
  if (lane < 8) out[8 + lane] = back[lane];
}

// D [16, 8] += A [16, 32] B [32, 8] in integers, clamped; B is column-major.
extern "C" __global__ void mma_s8(const uint32_t *a, const uint32_t *b, int *d) {
  int g = threadIdx.x / 4, t = threadIdx.x % 4;
  int acc[4];
  for (int i = 0; i < 4; i++) acc[i] = d[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2];
  asm volatile("mma.sync.aligned.m16n8k32.row.col.satfinite.s32.s8.u8.s32 {%0,%1,%2,%3}, "
               "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+r"(acc[0]), "+r"(acc[1]), "+r"(acc[2]), "+r"(acc[3])
               : "r"(a[g * 8 + t]), "r"(a[(g + 8) * 8 + t]), "r"(a[g * 8 + t + 4]),
                 "r"(a[(g + 8) * 8 + t + 4]), "r"(b[g * 8 + t]), "r"(b[g * 8 + t + 4]));
  for (int i = 0; i < 4; i++) d[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2] = acc[i];
}
