/* Numbers of 16 bits, bfloat16: the upper half of a float32, rounded to nearest, ties to even. */
static inline float widened(uint16_t x) {
    union { uint32_t i; float f; } bits;
    bits.i = (uint32_t)x << 16;
    return bits.f;
}

static inline uint16_t rounded(float x) {
    union { uint32_t i; float f; } bits;
    bits.f = x;
    return (uint16_t)((bits.i + 0x7fffu + ((bits.i >> 16) & 1u)) >> 16);
}

/* Scores [groups, queries, keys] in 16 bits become softmax(scale * scores) where a query may look, else zero.
 * Query i of a group looks at the keys up to `before + i`, and, where window is not zero, at that many. */
void band_softmax(uint16_t *scores, I groups, I queries, I keys, I before, I window, float scale) {
#pragma omp parallel for schedule(static)
    for (I row = 0; row < groups * queries; row++) {
        uint16_t *a = scores + row * keys;
        I stop = before + row % queries + 1, start = window && stop > window ? stop - window : 0;
        float top = -INFINITY, sum = 0.0f;
#pragma omp simd reduction(max : top)
        for (I j = start; j < stop; j++) {
            float v = widened(a[j]);
            top = v > top ? v : top;
        }
        for (I j = start; j < stop; j++) sum += fast_exp(scale * (widened(a[j]) - top));
        float share = 1.0f / sum;
        memset(a, 0, (size_t)start * sizeof(uint16_t));
        for (I j = start; j < stop; j++) a[j] = rounded(share * fast_exp(scale * (widened(a[j]) - top)));
        memset(a + stop, 0, (size_t)(keys - stop) * sizeof(uint16_t));
    }
}

/* g, the gradient of softmax's outputs p, becomes that of the scores; both in 16 bits. */
void band_softmax_backward(const uint16_t *p, uint16_t *g, I groups, I queries, I keys, I before, I window,
                           float scale) {
#pragma omp parallel for schedule(static)
    for (I row = 0; row < groups * queries; row++) {
        const uint16_t *a = p + row * keys;
        uint16_t *b = g + row * keys;
        I stop = before + row % queries + 1, start = window && stop > window ? stop - window : 0;
        float sum = 0.0f;
        for (I j = start; j < stop; j++) sum += widened(a[j]) * widened(b[j]);
        memset(b, 0, (size_t)start * sizeof(uint16_t));
        for (I j = start; j < stop; j++) b[j] = rounded(scale * widened(a[j]) * (widened(b[j]) - sum));
        memset(b + stop, 0, (size_t)(keys - stop) * sizeof(uint16_t));
    }
}

/* The kernels of kernels.c for numbers of 16 bits between products; sums are made in float32. */

void rms_forward_narrow(const float *x, uint16_t *y, float *inverse, I rows, I width, float eps) {
#pragma omp parallel for schedule(static)
    for (I i = 0; i < rows; i++) {
        const float *a = x + i * width;
        uint16_t *b = y + i * width;
        float sum = 0.0f;
        for (I j = 0; j < width; j++) sum += a[j] * a[j];
        float r = 1.0f / sqrtf(sum / (float)width + eps);
        inverse[i] = r;
        for (I j = 0; j < width; j++) b[j] = rounded(a[j] * r);
    }
}

/* out = rest + the gradient of x, where g is the gradient of y = x / rms(x). */
void rms_backward_narrow(const uint16_t *g, const uint16_t *y, const float *inverse, const float *rest, float *out,
                         I rows, I width) {
#pragma omp parallel for schedule(static)
    for (I i = 0; i < rows; i++) {
        const uint16_t *a = g + i * width, *b = y + i * width;
        const float *c = rest + i * width;
        float *o = out + i * width;
        float sum = 0.0f, r = inverse[i];
        for (I j = 0; j < width; j++) sum += widened(a[j]) * widened(b[j]);
        sum /= (float)width;
        for (I j = 0; j < width; j++) o[j] = c[j] + r * (widened(a[j]) - widened(b[j]) * sum);
    }
}

void swiglu_forward_narrow(const uint16_t *both, uint16_t *out, I rows, I width) {
#pragma omp parallel for schedule(static)
    for (I i = 0; i < rows; i++) {
        const uint16_t *gate = both + i * 2 * width, *up = gate + width;
        uint16_t *o = out + i * width;
        for (I j = 0; j < width; j++) {
            float x = widened(gate[j]);
            o[j] = rounded(x / (1.0f + fast_exp(-x)) * widened(up[j]));
        }
    }
}

/* both becomes its own gradient. */
void swiglu_backward_narrow(uint16_t *both, const uint16_t *g, I rows, I width) {
#pragma omp parallel for schedule(static)
    for (I i = 0; i < rows; i++) {
        uint16_t *gate = both + i * 2 * width, *up = gate + width;
        const uint16_t *o = g + i * width;
        for (I j = 0; j < width; j++) {
            float x = widened(gate[j]), s = 1.0f / (1.0f + fast_exp(-x)), q = widened(o[j]);
            gate[j] = rounded(q * widened(up[j]) * s * (1.0f + x * (1.0f - s)));
            up[j] = rounded(q * x * s);
        }
    }
}

void relu2_forward_narrow(const uint16_t *x, uint16_t *out, I rows, I width) {
    I count = rows * width;
#pragma omp parallel for schedule(static)
    for (I i = 0; i < count; i++) {
        float v = widened(x[i]);
        v = v > 0.0f ? v : 0.0f;
        out[i] = rounded(v * v);
    }
}

/* x becomes its own gradient. */
void relu2_backward_narrow(uint16_t *x, const uint16_t *g, I rows, I width) {
    I count = rows * width;
#pragma omp parallel for schedule(static)
    for (I i = 0; i < count; i++) {
        float v = widened(x[i]);
        x[i] = v > 0.0f ? rounded(2.0f * v * widened(g[i])) : 0;
    }
}

/* z [rows, stride] holds heads of queries, of keys, of values. Queries go normalised and turned to
 * q [row, keys, group, tokens, dim], keys so to k and values as they are to v [row, keys, tokens, dim]. */
void heads_forward_narrow(const uint16_t *z, uint16_t *q, uint16_t *k, uint16_t *v, float *inverse,
                          const float *query_gain, const float *key_gain, const float *cosine, const float *sine,
                          I rows, I tokens, I queries, I keys, I dim, float eps) {
    I half = dim / 2, heads = queries + keys, stride = (heads + keys) * dim, group = queries / keys;
#pragma omp parallel for schedule(static)
    for (I i = 0; i < rows; i++) {
        I row = i / tokens, t = i % tokens;
        const float *c = cosine ? cosine + t * half : 0, *s = cosine ? sine + t * half : 0;
        float unit[MOST_HEAD];
        for (I h = 0; h < heads; h++) {
            const uint16_t *a = z + i * stride + h * dim;
            const float *gain = h < queries ? query_gain : key_gain;
            uint16_t *o = h < queries ? q + (((row * keys + h / group) * group + h % group) * tokens + t) * dim
                                      : k + ((row * keys + h - queries) * tokens + t) * dim;
            for (I j = 0; j < dim; j++) unit[j] = widened(a[j]);
            if (gain) {
                float sum = 0.0f;
                for (I j = 0; j < dim; j++) sum += unit[j] * unit[j];
                float r = 1.0f / sqrtf(sum / (float)dim + eps);
                inverse[i * heads + h] = r;
                for (I j = 0; j < dim; j++) unit[j] *= r * gain[j];
            }
            if (c)
                for (I j = 0; j < half; j++) {
                    float x = unit[j], y = unit[j + half];
                    o[j] = rounded(x * c[j] - y * s[j]);
                    o[j + half] = rounded(y * c[j] + x * s[j]);
                }
            else
                for (I j = 0; j < dim; j++) o[j] = rounded(unit[j]);
        }
        for (I h = 0; h < keys; h++)
            memcpy(v + ((row * keys + h) * tokens + t) * dim, z + i * stride + (heads + h) * dim,
                   (size_t)dim * sizeof(uint16_t));
    }
}

/* The gradient of z [rows, stride] from those of what `heads_forward_narrow` gave, laid out alike; gains'
 * gradients are added to query_sum and key_sum. */
void heads_backward_narrow(const uint16_t *gq, const uint16_t *gk, const uint16_t *gv, const uint16_t *z,
                           uint16_t *gz, const float *inverse, const float *query_gain, const float *key_gain,
                           float *query_sum, float *key_sum, const float *cosine, const float *sine, I rows,
                           I tokens, I queries, I keys, I dim) {
    static float sums[MOST_THREADS][2 * MOST_HEAD];
    I half = dim / 2, heads = queries + keys, stride = (heads + keys) * dim, group = queries / keys;
    int threads = 1;
#pragma omp parallel
    {
        float *own = sums[omp_get_thread_num()];
        float back[MOST_HEAD], unit[MOST_HEAD];
        memset(own, 0, (size_t)(2 * dim) * sizeof(float));
#pragma omp single
        threads = omp_get_num_threads();
#pragma omp for schedule(static)
        for (I i = 0; i < rows; i++) {
            I row = i / tokens, t = i % tokens;
            const float *c = cosine ? cosine + t * half : 0, *s = cosine ? sine + t * half : 0;
            for (I h = 0; h < heads; h++) {
                const uint16_t *g = h < queries
                                        ? gq + (((row * keys + h / group) * group + h % group) * tokens + t) * dim
                                        : gk + ((row * keys + h - queries) * tokens + t) * dim;
                const uint16_t *a = z + i * stride + h * dim;
                const float *gain = h < queries ? query_gain : key_gain;
                uint16_t *o = gz + i * stride + h * dim;
                float *sum = own + (h < queries ? 0 : dim);
                if (c)
                    for (I j = 0; j < half; j++) {
                        float x = widened(g[j]), y = widened(g[j + half]);
                        back[j] = x * c[j] + y * s[j];
                        back[j + half] = y * c[j] - x * s[j];
                    }
                else
                    for (I j = 0; j < dim; j++) back[j] = widened(g[j]);
                if (gain) {
                    float r = inverse[i * heads + h], mean = 0.0f;
                    for (I j = 0; j < dim; j++) {
                        unit[j] = widened(a[j]) * r;
                        sum[j] += back[j] * unit[j];
                        back[j] *= gain[j];
                        mean += back[j] * unit[j];
                    }
                    mean /= (float)dim;
                    for (I j = 0; j < dim; j++) back[j] = r * (back[j] - unit[j] * mean);
                }
                for (I j = 0; j < dim; j++) o[j] = rounded(back[j]);
            }
            for (I h = 0; h < keys; h++)
                memcpy(gz + i * stride + (heads + h) * dim, gv + ((row * keys + h) * tokens + t) * dim,
                       (size_t)dim * sizeof(uint16_t));
        }
    }
    if (query_gain)
        for (int t = 0; t < threads; t++)
            for (I j = 0; j < dim; j++) {
                query_sum[j] += sums[t][j];
                key_sum[j] += sums[t][dim + j];
            }
}
