// The warp matrix functions of the CUDA headers, one kernel per kind of fragment.
// nvcc -ptx -arch=sm_80 wmma.cu
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <mma.h>

using namespace nvcuda;

// D = A B + C with row-major A [M, K], column-major B, C and D as the layout says; one warp.
template <int M, int N, int K, typename In, typename Acc, typename Out>
__device__ void multiply(const In *a, const In *b, const Out *c, Out *d) {
  wmma::fragment<wmma::matrix_a, M, N, K, Acc, wmma::row_major> fa;
  wmma::fragment<wmma::matrix_b, M, N, K, Acc, wmma::col_major> fb;
  wmma::fragment<wmma::accumulator, M, N, K, Out> fc;
  wmma::load_matrix_sync(fa, a, K);
  wmma::load_matrix_sync(fb, b, K);
  wmma::load_matrix_sync(fc, c, N, wmma::mem_row_major);
  for (int i = 0; i < fc.num_elements; i++) fc.x[i] = fc.x[i] + fc.x[i];
  wmma::mma_sync(fc, fa, fb, fc);
  wmma::store_matrix_sync(d, fc, N, wmma::mem_row_major);
}

extern "C" __global__ void wmma_f16(const half *a, const half *b, const float *c, float *d) {
  multiply<16, 16, 16, half, half>(a, b, c, d);
}

extern "C" __global__ void wmma_bf16(const __nv_bfloat16 *a, const __nv_bfloat16 *b,
                                     const float *c, float *d) {
  multiply<32, 8, 16, __nv_bfloat16, __nv_bfloat16>(a, b, c, d);
}

extern "C" __global__ void wmma_s8(const signed char *a, const signed char *b, const int *c,
                                   int *d) {
  multiply<8, 32, 16, signed char, signed char>(a, b, c, d);
}

extern "C" __global__ void wmma_f64(const double *a, const double *b, const double *c,
                                    double *d) {
  multiply<8, 8, 4, double, double>(a, b, c, d);
}

// tf32, with a stride that is not the width, a column-major A and a column-major result.
extern "C" __global__ void wmma_tf32(const float *a, const float *b, float *d, int lda, int ldb,
                                     int ldd) {
  wmma::fragment<wmma::matrix_a, 16, 16, 8, wmma::precision::tf32, wmma::col_major> fa;
  wmma::fragment<wmma::matrix_b, 16, 16, 8, wmma::precision::tf32, wmma::row_major> fb;
  wmma::fragment<wmma::accumulator, 16, 16, 8, float> fd;
  wmma::fill_fragment(fd, 0.0f);
  wmma::load_matrix_sync(fa, a, lda);
  wmma::load_matrix_sync(fb, b, ldb);
  for (int i = 0; i < fa.num_elements; i++) fa.x[i] = wmma::__float_to_tf32(fa.x[i]);
  for (int i = 0; i < fb.num_elements; i++) fb.x[i] = wmma::__float_to_tf32(fb.x[i]);
  wmma::mma_sync(fd, fa, fb, fd);
  wmma::store_matrix_sync(d, fd, ldd, wmma::mem_col_major);
}

// f16 accumulators through shared memory: two warps, each 16 rows of A, K in steps of 16.
extern "C" __global__ void wmma_f16_tiles(const half *a, const half *b, half *d, int k) {
  __shared__ half tile[2][16 * 16];
  int warp = threadIdx.x / 32;
  wmma::fragment<wmma::matrix_a, 16, 16, 16, half, wmma::row_major> fa;
  wmma::fragment<wmma::matrix_b, 16, 16, 16, half, wmma::row_major> fb;
  wmma::fragment<wmma::accumulator, 16, 16, 16, half> fd;
  wmma::fill_fragment(fd, __float2half(0.0f));
#pragma unroll 1
  for (int k0 = 0; k0 < k; k0 += 16) {
    wmma::load_matrix_sync(fa, a + warp * 16 * k + k0, k);
    wmma::load_matrix_sync(fb, b + k0 * 16, 16);
    wmma::mma_sync(fd, fa, fb, fd);
  }
  wmma::store_matrix_sync(tile[warp], fd, 16, wmma::mem_row_major);
  __syncthreads();
#pragma unroll 1
  for (int i = threadIdx.x; i < 512; i += 64) d[i] = tile[i / 256][i % 256];
}
