// Blocks that sum, scan, sort and count by CUB, tiles of a warp, and pipelines of the CUDA headers.
// nvcc -ptx -arch=sm_80 -std=c++17 --extended-lambda blocks.cu
#include <cooperative_groups.h>
#include <cub/cub.cuh>
#include <cuda/pipeline>

namespace cg = cooperative_groups;
constexpr int N = 128;

template <cub::BlockReduceAlgorithm How>
__device__ void reduced(const int *in, int *out) {
  using Reduce = cub::BlockReduce<int, N, How>;
  __shared__ typename Reduce::TempStorage memory;
  int sum = Reduce(memory).Sum(in[blockIdx.x * N + threadIdx.x]);
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}
extern "C" __global__ void reduce_raking(const int *in, int *out) {
  reduced<cub::BLOCK_REDUCE_RAKING>(in, out);
}
extern "C" __global__ void reduce_warps(const int *in, int *out) {
  reduced<cub::BLOCK_REDUCE_WARP_REDUCTIONS>(in, out);
}

// Two scans in the same shared memory.
template <cub::BlockScanAlgorithm How>
__device__ void scanned(const int *in, int *out) {
  using Scan = cub::BlockScan<int, N, How>;
  __shared__ typename Scan::TempStorage memory;
  int at = blockIdx.x * N + threadIdx.x, value = in[at], upto, before;
  Scan(memory).InclusiveSum(value, upto);
  __syncthreads();
  Scan(memory).ExclusiveSum(value, before);
  out[at] = upto + before;
}
extern "C" __global__ void scan_raking(const int *in, int *out) {
  scanned<cub::BLOCK_SCAN_RAKING>(in, out);
}
extern "C" __global__ void scan_warps(const int *in, int *out) {
  scanned<cub::BLOCK_SCAN_WARP_SCANS>(in, out);
}

// Loads and stores that transpose in shared memory, around a radix sort in the same place.
extern "C" __global__ void radix_sort(const int *in, int *out) {
  using Load = cub::BlockLoad<int, N, 2, cub::BLOCK_LOAD_WARP_TRANSPOSE>;
  using Sort = cub::BlockRadixSort<int, N, 2>;
  using Store = cub::BlockStore<int, N, 2, cub::BLOCK_STORE_TRANSPOSE>;
  __shared__ union {
    typename Load::TempStorage load;
    typename Sort::TempStorage sort;
    typename Store::TempStorage store;
  } memory;
  int keys[2];
  Load(memory.load).Load(in, keys);
  __syncthreads();
  Sort(memory.sort).Sort(keys, 0, 8);
  __syncthreads();
  Store(memory.store).Store(out, keys);
}

extern "C" __global__ void merge_sort(const int *in, int *out) {
  using Sort = cub::BlockMergeSort<int, N, 2>;
  __shared__ typename Sort::TempStorage memory;
  int keys[2] = {in[threadIdx.x * 2], in[threadIdx.x * 2 + 1]};
  Sort(memory).Sort(keys, [](int a, int b) { return a < b; });
  out[threadIdx.x * 2] = keys[0], out[threadIdx.x * 2 + 1] = keys[1];
}

// Tiles of 8 threads halve their sums in shared memory; the odd threads form a group of their own.
extern "C" __global__ void tiles(const int *in, int *out) {
  __shared__ int part[N];
  auto tile = cg::tiled_partition<8>(cg::this_thread_block());
  part[threadIdx.x] = in[threadIdx.x];
  tile.sync();
  for (int d = 4; d; d /= 2) {
    if (tile.thread_rank() < d) part[threadIdx.x] += part[threadIdx.x + d];
    tile.sync();
  }
  int sum = part[threadIdx.x / 8 * 8];
  tile.sync();
  if (threadIdx.x & 1) {
    auto odd = cg::coalesced_threads();
    part[threadIdx.x] = odd.thread_rank();
    odd.sync();
    sum += part[threadIdx.x ^ 2];
  }
  out[threadIdx.x] = sum;
}

// Two stages that the block fills and reads together; then a warp fills for the others.
extern "C" __global__ void pipeline_of_all(const int *in, int *out, int rows) {
  __shared__ alignas(16) int stage[2][N];
  __shared__ cuda::pipeline_shared_state<cuda::thread_scope_block, 2> state;
  auto block = cg::this_thread_block();
  auto pipe = cuda::make_pipeline(block, &state);
  int sum = 0;
  for (int row = 0, next = 0; row < rows; row++) {
    for (; next < rows && next < row + 2; next++) {
      pipe.producer_acquire();
      cuda::memcpy_async(block, stage[next % 2], in + next * N,
                         cuda::aligned_size_t<16>(sizeof(int) * N), pipe);
      pipe.producer_commit();
    }
    pipe.consumer_wait();
    sum += stage[row % 2][N - 1 - threadIdx.x];
    pipe.consumer_release();
  }
  out[threadIdx.x] = sum;
}
extern "C" __global__ void pipeline_of_roles(const int *in, int *out, int rows) {
  __shared__ int stage[2][N];
  __shared__ cuda::pipeline_shared_state<cuda::thread_scope_block, 2> state;
  auto role = threadIdx.x < 32 ? cuda::pipeline_role::producer : cuda::pipeline_role::consumer;
  auto pipe = cuda::make_pipeline(cg::this_thread_block(), &state, role);
  if (role == cuda::pipeline_role::producer) {
    for (int row = 0; row < rows; row++) {
      pipe.producer_acquire();
      for (int i = threadIdx.x; i < N; i += 32)
        cuda::memcpy_async(&stage[row % 2][i], in + row * N + i, 4, pipe);
      pipe.producer_commit();
    }
  } else {
    int sum = 0;
    for (int row = 0; row < rows; row++) {
      pipe.consumer_wait();
      sum += stage[row % 2][N - 1 - threadIdx.x];
      pipe.consumer_release();
    }
    out[threadIdx.x] = sum;
  }
}
