"""Forward and backward as CUDA C++ through CuPy: a block a row, passing over it again in the cache."""

from __future__ import annotations

from functools import cache
from typing import Any

from npselect.bench.devices.arrays import DeviceArray
from npselect.bench.devices.peers import DevicePeers
from npselect.bench.peer import needed

__all__ = ["SOURCE", "peers"]

THREADS = 256
SOURCE = r"""
template <class T, class F> __device__ T reduced(T value, F merge) {
    __shared__ T parts[32];
    for (int offset = 16; offset > 0; offset /= 2) value = merge(value, T(value.shuffled(offset)));
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
    __syncthreads();
    value = parts[0];
    for (int i = 1; i < blockDim.x / 32; i++) value = merge(value, parts[i]);
    return value;
}
struct Best {
    float w; int at;
    __device__ Best shuffled(int offset) const {
        return {__shfl_xor_sync(~0u, w, offset), __shfl_xor_sync(~0u, at, offset)};
    }
};
struct Sums {
    float s, d;
    __device__ Sums shuffled(int offset) const {
        return {__shfl_xor_sync(~0u, s, offset), __shfl_xor_sync(~0u, d, offset)};
    }
};
__device__ Best best_of(const float* w, int choices) {
    Best best = {-1.0f / 0.0f, choices};
    for (int j = threadIdx.x; j < choices; j += blockDim.x) if (w[j] > best.w) best = {w[j], j};
    return reduced(best, [](Best a, Best b) { return a.w > b.w || (a.w == b.w && a.at < b.at) ? a : b; });
}
extern "C" __global__ void forward(const float* logits, float* out, int choices) {
    long long start = (long long)blockIdx.x * choices;
    int selected = best_of(logits + start, choices).at;
    for (int j = threadIdx.x; j < choices; j += blockDim.x) out[start + j] = j == selected;
}
extern "C" __global__ void backward(const float* grad, const float* logits, float* out, int choices, float temp) {
    long long start = (long long)blockIdx.x * choices;
    const float *w = logits + start, *g = grad + start;
    float top = best_of(w, choices).w;
    Sums sums = {0, 0};
    for (int j = threadIdx.x; j < choices; j += blockDim.x) {
        float e = expf((w[j] - top) / temp);
        sums.s += e;
        sums.d += e * g[j];
    }
    sums = reduced(sums, [](Sums a, Sums b) { return Sums{a.s + b.s, a.d + b.d}; });
    float d = sums.d / sums.s;
    for (int j = threadIdx.x; j < choices; j += blockDim.x)
        out[start + j] = expf((w[j] - top) / temp) / sums.s * (g[j] - d) / temp;
}
"""


@cache
def _kernel(name: str) -> Any:
    return needed("cupy").RawModule(code=SOURCE, options=("-std=c++17",)).get_function(name)


def peers() -> DevicePeers:
    """Each in float32 alone."""
    _kernel("forward")
    return {"forward": {"CuPy": _forward}, "backward": {"CuPy": _backward}}


def _forward(g: DeviceArray, logits: DeviceArray, out: DeviceArray, temp: float) -> None:
    cupy = needed("cupy")
    _launch("forward", logits, cupy.asarray(logits), cupy.asarray(out), cupy.int32(logits.shape[1]))


def _backward(g: DeviceArray, logits: DeviceArray, out: DeviceArray, temp: float) -> None:
    cupy = needed("cupy")
    arrays = (cupy.asarray(g), cupy.asarray(logits), cupy.asarray(out))
    _launch("backward", logits, *arrays, cupy.int32(logits.shape[1]), cupy.float32(temp))


def _launch(name: str, logits: DeviceArray, *arguments: object) -> None:
    _kernel(name)((logits.shape[0],), (THREADS,), arguments)
