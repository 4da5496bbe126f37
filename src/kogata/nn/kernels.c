/* What plain torch does in many passes over memory, done in one: norms, rotary heads, gates, cross-entropy.
 *
 * Arrays are float32 unless their types say otherwise, and contiguous in their last dimension. Rows are shared out statically and sums
 * are added in the order of the threads, so a result depends on the number of threads and on nothing else.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_thread_num(void) { return 0; }
static int omp_get_num_threads(void) { return 1; }
#endif

typedef int64_t I;

#define MOST_THREADS 256
#define MOST_HEAD 512

/* exp to about 1e-7 relative; not-a-number stays what it is. */
static inline float fast_exp(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float k = rintf(x * 1.44269504f);
    float f = x - k * 0.693359375f + k * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * f + 1.3981999507e-3f;
    p = p * f + 8.3334519073e-3f;
    p = p * f + 4.1665795894e-2f;
    p = p * f + 1.6666665459e-1f;
    p = p * f + 5.0000001201e-1f;
    p = p * f * f + f + 1.0f;
    union { int32_t i; float f; } bits;
    bits.i = ((int32_t)k + 127) << 23;
    return p * bits.f;
}

/* y = x / rms(x), by row; inverse[row] = 1 / rms(x). */
void rms_forward(const float *x, float *y, float *inverse, I rows, I width, float eps) {
#pragma omp parallel for schedule(static)
    for (I i = 0; i < rows; i++) {
        const float *a = x + i * width;
        float *b = y + i * width;
        float sum = 0.0f;
        for (I j = 0; j < width; j++) sum += a[j] * a[j];
        float r = 1.0f / sqrtf(sum / (float)width + eps);
        inverse[i] = r;
        for (I j = 0; j < width; j++) b[j] = a[j] * r;
    }
}

/* out = rest + the gradient of x, where g is the gradient of y = x / rms(x); rest may be null. */
void rms_backward(const float *g, const float *y, const float *inverse, const float *rest, float *out, I rows,
                  I width) {
#pragma omp parallel for schedule(static)
    for (I i = 0; i < rows; i++) {
        const float *a = g + i * width, *b = y + i * width;
        float *o = out + i * width;
        float sum = 0.0f, r = inverse[i];
        for (I j = 0; j < width; j++) sum += a[j] * b[j];
        sum /= (float)width;
        if (rest) {
            const float *c = rest + i * width;
            for (I j = 0; j < width; j++) o[j] = c[j] + r * (a[j] - b[j] * sum);
        } else {
            for (I j = 0; j < width; j++) o[j] = r * (a[j] - b[j] * sum);
        }
    }
}

/* y = gain * x / rms(x), by row; inverse[row] = 1 / rms(x). */
void rms_gain_forward(const float *x, const float *gain, float *y, float *inverse, I rows, I width, float eps) {
#pragma omp parallel for schedule(static)
    for (I i = 0; i < rows; i++) {
        const float *a = x + i * width;
        float *b = y + i * width;
        float sum = 0.0f;
        for (I j = 0; j < width; j++) sum += a[j] * a[j];
        float r = 1.0f / sqrtf(sum / (float)width + eps);
        inverse[i] = r;
        for (I j = 0; j < width; j++) b[j] = a[j] * r * gain[j];
    }
}

/* out = the gradient of x, where g is the gradient of y = gain * x / rms(x). */
void rms_gain_backward(const float *g, const float *x, const float *inverse, const float *gain, float *out, I rows,
                       I width) {
#pragma omp parallel for schedule(static)
    for (I i = 0; i < rows; i++) {
        const float *a = g + i * width, *b = x + i * width;
        float *o = out + i * width;
        float sum = 0.0f, r = inverse[i];
        for (I j = 0; j < width; j++) sum += a[j] * gain[j] * b[j];
        sum *= r * r / (float)width;
        for (I j = 0; j < width; j++) o[j] = r * (a[j] * gain[j] - b[j] * sum);
    }
}

/* Queries and keys: z [rows, stride] holds `queries` then `keys` heads of size `dim`; out [rows, (q+k)*dim]
 * gets them normalised (gains; null: not at all) and turned (cosine, sine [tokens, dim/2]; null: not at all). */
void heads_forward(const float *z, float *out, float *inverse, const float *query_gain, const float *key_gain,
                   const float *cosine, const float *sine, I rows, I tokens, I stride, I queries, I keys, I dim,
                   float eps) {
    I half = dim / 2, heads = queries + keys;
#pragma omp parallel for schedule(static)
    for (I i = 0; i < rows; i++) {
        const float *c = cosine ? cosine + (i % tokens) * half : 0, *s = cosine ? sine + (i % tokens) * half : 0;
        for (I h = 0; h < heads; h++) {
            const float *a = z + i * stride + h * dim;
            float *o = out + (i * heads + h) * dim;
            const float *gain = h < queries ? query_gain : key_gain;
            if (gain) {
                float sum = 0.0f;
                for (I j = 0; j < dim; j++) sum += a[j] * a[j];
                float r = 1.0f / sqrtf(sum / (float)dim + eps);
                inverse[i * heads + h] = r;
                for (I j = 0; j < dim; j++) o[j] = a[j] * r * gain[j];
            } else {
                memcpy(o, a, (size_t)dim * sizeof(float));
            }
            if (c)
                for (I j = 0; j < half; j++) {
                    float u = o[j], v = o[j + half];
                    o[j] = u * c[j] - v * s[j];
                    o[j + half] = v * c[j] + u * s[j];
                }
        }
    }
}

/* The gradient of z's heads goes to gz [rows, stride]; gains' gradients are added to query_sum and key_sum.
 * gq [rows, queries*dim] and gk [rows, keys*dim] are gradients of what `heads_forward` gave. */
void heads_backward(const float *gq, const float *gk, const float *z, float *gz, const float *inverse,
                    const float *query_gain, const float *key_gain, float *query_sum, float *key_sum,
                    const float *cosine, const float *sine, I rows, I tokens, I stride, I queries, I keys, I dim) {
    static float sums[MOST_THREADS][2 * MOST_HEAD];
    I half = dim / 2, heads = queries + keys;
    int threads = 1;
#pragma omp parallel
    {
        float *own = sums[omp_get_thread_num()];
        float unit[MOST_HEAD];
        memset(own, 0, (size_t)(2 * dim) * sizeof(float));
#pragma omp single
        threads = omp_get_num_threads();
#pragma omp for schedule(static)
        for (I i = 0; i < rows; i++) {
            const float *c = cosine ? cosine + (i % tokens) * half : 0, *s = cosine ? sine + (i % tokens) * half : 0;
            for (I h = 0; h < heads; h++) {
                const float *g = h < queries ? gq + (i * queries + h) * dim : gk + (i * keys + h - queries) * dim;
                const float *a = z + i * stride + h * dim, *gain = h < queries ? query_gain : key_gain;
                float *o = gz + i * stride + h * dim, *sum = own + (h < queries ? 0 : dim);
                if (c)
                    for (I j = 0; j < half; j++) {
                        float u = g[j], v = g[j + half];
                        o[j] = u * c[j] + v * s[j];
                        o[j + half] = v * c[j] - u * s[j];
                    }
                else
                    memcpy(o, g, (size_t)dim * sizeof(float));
                if (!gain) continue;
                float r = inverse[i * heads + h], mean = 0.0f;
                for (I j = 0; j < dim; j++) {
                    unit[j] = a[j] * r;
                    sum[j] += o[j] * unit[j];
                    o[j] *= gain[j];
                    mean += o[j] * unit[j];
                }
                mean /= (float)dim;
                for (I j = 0; j < dim; j++) o[j] = r * (o[j] - unit[j] * mean);
            }
        }
    }
    if (query_gain)
        for (int t = 0; t < threads; t++)
            for (I j = 0; j < dim; j++) {
                query_sum[j] += sums[t][j];
                key_sum[j] += sums[t][dim + j];
            }
}

/* out = silu(gate) * up, where both [rows, 2*width] holds gate then up. */
void swiglu_forward(const float *both, float *out, I rows, I width) {
#pragma omp parallel for schedule(static)
    for (I i = 0; i < rows; i++) {
        const float *gate = both + i * 2 * width, *up = gate + width;
        float *o = out + i * width;
        for (I j = 0; j < width; j++) o[j] = gate[j] / (1.0f + fast_exp(-gate[j])) * up[j];
    }
}

/* both becomes its own gradient. */
void swiglu_backward(float *both, const float *g, I rows, I width) {
#pragma omp parallel for schedule(static)
    for (I i = 0; i < rows; i++) {
        float *gate = both + i * 2 * width, *up = gate + width;
        const float *o = g + i * width;
        for (I j = 0; j < width; j++) {
            float x = gate[j], s = 1.0f / (1.0f + fast_exp(-x)), q = o[j];
            gate[j] = q * up[j] * s * (1.0f + x * (1.0f - s));
            up[j] = q * x * s;
        }
    }
}

/* out = relu(x)². */
void relu2_forward(const float *x, float *out, I rows, I width) {
    I count = rows * width;
#pragma omp parallel for schedule(static)
    for (I i = 0; i < count; i++) {
        float v = x[i] > 0.0f ? x[i] : 0.0f;
        out[i] = v * v;
    }
}

/* x becomes its own gradient. */
void relu2_backward(float *x, const float *g, I rows, I width) {
    I count = rows * width;
#pragma omp parallel for schedule(static)
    for (I i = 0; i < count; i++) x[i] = x[i] > 0.0f ? 2.0f * x[i] * g[i] : 0.0f;
}

/* Logits z [rows, vocab] become weight * (softmax - onehot); loss[row] = -log p(target). weight may be null. */
void cross_entropy(float *z, const I *target, const float *weight, float *loss, I rows, I vocab) {
#pragma omp parallel for schedule(static)
    for (I i = 0; i < rows; i++) {
        float *a = z + i * vocab;
        float top = a[0], chosen = a[target[i]], sum = 0.0f, w = weight ? weight[i] : 1.0f;
#pragma omp simd reduction(max : top)
        for (I j = 0; j < vocab; j++) top = a[j] > top ? a[j] : top;
        for (I j = 0; j < vocab; j++) {
            float e = fast_exp(a[j] - top);
            a[j] = e;
            sum += e;
        }
        loss[i] = top + logf(sum) - chosen;
        float scale = w / sum;
        for (I j = 0; j < vocab; j++) a[j] *= scale;
        a[target[i]] -= w;
    }
}

#include "kernels_narrow.h"
