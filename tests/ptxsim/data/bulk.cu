// Bulk and tensor copies of the CUDA headers (cuda::ptx, cuda::barrier), clusters of one block.
// nvcc -ptx -arch=sm_90a bulk.cu
#include <cooperative_groups.h>
#include <cuda.h>
#include <cuda/barrier>
#include <cuda/ptx>

namespace ptx = cuda::ptx;
namespace cg = cooperative_groups;
using barrier = cuda::barrier<cuda::thread_scope_block>;

// out[i] = 2 in[i], 256 floats per block: bulk copies there and back, by thread 0.
extern "C" __global__ void bulk_twice(const float *in, float *out) {
  __shared__ alignas(16) float tile[256];
  __shared__ barrier ready;
  if (threadIdx.x == 0) {
    init(&ready, blockDim.x);
    ptx::fence_proxy_async(ptx::space_shared);
  }
  __syncthreads();
  barrier::arrival_token token;
  if (threadIdx.x == 0) {
    cuda::memcpy_async(tile, in + blockIdx.x * 256, cuda::aligned_size_t<16>(sizeof(tile)), ready);
    token = cuda::device::barrier_arrive_tx(ready, 1, 0);
  } else {
    token = ready.arrive();
  }
  ready.wait(std::move(token));
  for (int i = threadIdx.x; i < 256; i += blockDim.x) tile[i] *= 2.0f;
  ptx::fence_proxy_async(ptx::space_shared);
  __syncthreads();
  if (threadIdx.x == 0) {
    ptx::cp_async_bulk(ptx::space_global, ptx::space_shared, out + blockIdx.x * 256, tile,
                       sizeof(tile));
    ptx::cp_async_bulk_commit_group();
    ptx::cp_async_bulk_wait_group_read(ptx::n32_t<0>());
  }
}

// Adds 64 ints of every block to the same 64, then f16 likewise.
extern "C" __global__ void bulk_reduce(const int *in, int *sum) {
  __shared__ alignas(16) int tile[64];
  tile[threadIdx.x] = in[blockIdx.x * 64 + threadIdx.x];
  ptx::fence_proxy_async(ptx::space_shared);
  __syncthreads();
  if (threadIdx.x == 0) {
    ptx::cp_reduce_async_bulk(ptx::space_global, ptx::space_shared, ptx::op_add, sum, tile,
                              sizeof(tile));
    ptx::cp_async_bulk_commit_group();
    ptx::cp_async_bulk_wait_group(ptx::n32_t<0>());
  }
}

// A [rows, 64] box of bf16 under a 128-byte swizzle: load, read by the swizzle, store plainly.
extern "C" __global__ void tensor_copy(const __grid_constant__ CUtensorMap from,
                                       const __grid_constant__ CUtensorMap to, int x, int y) {
  __shared__ alignas(1024) uint4 in[32][8];
  __shared__ alignas(128) uint4 out[32][8];
  __shared__ uint64_t ready;
  if (threadIdx.x == 0) {
    ptx::mbarrier_init(&ready, 1);
    ptx::fence_mbarrier_init(ptx::sem_release, ptx::scope_cluster);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    int at[2] = {x, y};
    ptx::mbarrier_arrive_expect_tx(ptx::sem_release, ptx::scope_cta, ptx::space_shared, &ready,
                                   sizeof(in));
    ptx::cp_async_bulk_tensor(ptx::space_cluster, ptx::space_global, in, &from, at, &ready);
  }
  while (!ptx::mbarrier_try_wait_parity(&ready, 0)) {
  }
  for (int i = threadIdx.x; i < 256; i += blockDim.x) out[i / 8][i % 8] = in[i / 8][i % 8 ^ i / 8 % 8];
  ptx::fence_proxy_async(ptx::space_shared);
  __syncthreads();
  if (threadIdx.x == 0) {
    int at[2] = {x, y};
    ptx::cp_async_bulk_tensor(ptx::space_global, ptx::space_shared, &to, at, out);
    ptx::cp_async_bulk_commit_group();
    ptx::cp_async_bulk_wait_group(ptx::n32_t<0>());
  }
}

// A box of three dimensions added to a tensor, in a cluster of one block, multicast to itself.
extern "C" __global__ void __cluster_dims__(1, 1, 1)
tensor_add(const __grid_constant__ CUtensorMap from, const __grid_constant__ CUtensorMap to) {
  __shared__ alignas(128) float tile[4 * 4 * 8];
  __shared__ uint64_t ready;
  cg::cluster_group cluster = cg::this_cluster();
  if (threadIdx.x == 0) {
    ptx::mbarrier_init(&ready, 1);
    ptx::fence_mbarrier_init(ptx::sem_release, ptx::scope_cluster);
  }
  cluster.sync();
  int at[3] = {0, (int)blockIdx.x * 4, (int)cluster.block_rank()};
  if (threadIdx.x == 0) {
    ptx::mbarrier_arrive_expect_tx(ptx::sem_release, ptx::scope_cluster, ptx::space_shared,
                                   &ready, sizeof(tile));
    ptx::cp_async_bulk_tensor(ptx::space_cluster, ptx::space_global, tile, &from, at, &ready,
                              (uint16_t)1);
  }
  while (!ptx::mbarrier_try_wait_parity(ptx::sem_acquire, ptx::scope_cluster, &ready, 0)) {
  }
  float *mine = cluster.map_shared_rank(tile, 0);
  mine[threadIdx.x] += (float)threadIdx.x;
  ptx::fence_proxy_async();
  cluster.sync();
  if (threadIdx.x == 0) {
    ptx::cp_reduce_async_bulk_tensor(ptx::space_global, ptx::space_shared, ptx::op_add, &to, at,
                                     tile);
    ptx::cp_async_bulk_commit_group();
    ptx::cp_async_bulk_wait_group_read(ptx::n32_t<0>());
  }
}
