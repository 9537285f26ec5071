// Functions that are not inlined, a structure by value, and a jump by a table.
// nvcc -ptx -arch=sm_80 calls.cu
struct Pair {
  float a, b;
  int tag;
};

extern "C" __device__ __noinline__ int digits(int v) {
  int count = 0;
  while (v) v /= 10, count++;
  return count;
}

extern "C" __device__ __noinline__ Pair swapped(Pair p, int *visits) {
  atomicAdd(visits, digits(p.tag));
  return {p.b, p.a, -p.tag};
}

extern "C" __device__ __noinline__ void sum_of_warp(int v, int *shared) {
  for (int d = 16; d; d /= 2) v += __shfl_xor_sync(0xffffffffu, v, d);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = v;
  __syncthreads();
}

// Threads call in branches; functions call functions.
extern "C" __global__ void called(const float *in, float *out, int *visits) {
  int t = blockIdx.x * blockDim.x + threadIdx.x;
  Pair p = {in[2 * t], in[2 * t + 1], t};
  if (t % 3) p = swapped(p, visits);
  if (t % 2) p.tag += digits(t * 100);
  out[3 * t] = p.a, out[3 * t + 1] = p.b, out[3 * t + 2] = p.tag;
}

extern "C" __global__ void sums(const int *in, int *out) {
  __shared__ int parts[2];
  sum_of_warp(in[threadIdx.x], parts);
  out[threadIdx.x] = parts[0] - 3 * parts[1];
}

extern "C" __global__ void table(const int *in, int *out) {
  int t = threadIdx.x, v = in[t];
  switch (v) {
    case 0: v = out[t] * 3; break;
    case 1: v = __popc(out[t]); break;
    case 2: v = out[t] ^ 77; break;
    case 3: v = -out[t]; break;
    case 4: v = out[t] / 7; break;
    case 5: v = out[t] << 3; break;
    case 6: v = __clz(out[t]); break;
    case 7: v = out[t] % 11; break;
    default: v = 1000;
  }
  out[t] = v;
}
