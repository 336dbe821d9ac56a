/* The next token of every row, from its logits (token_choice.py): what is left of a vocabulary after temperature, top-k, top-p and min-p, and a draw from it.

   As torch operations a draw from 64 rows of 49,152 logits makes a dozen tensors of 12 to 25 MB, and top-p sorts. Here a row stays in the core's cache. What
   is kept of it is all above a threshold, found by halving the range of float: no row is sorted. Plain C, so any processor will do.

   Order and meaning are those of infer/sampling.py. Logits are float32, sums double.
   Dims: R rows, V vocabulary. */

#include <stdlib.h>

#include "exponential.h"

enum { BLOCK = 512 }; /* summed in float32, then in double */

typedef struct { /* of a row; as infer/protocols.py, Sampling */
    float temperature; /* 0: the likeliest */
    float min_p;
    int32_t top_k, keep_crossing;
    double top_p;
    double drawn; /* 0 to 1, 1 excluded */
} Choice;

/* floats as integers of the same order, and back */
INLINE int32_t key_of(float x) {
    int32_t bits;
    memcpy(&bits, &x, 4);
    return bits >= 0 ? bits : bits ^ 0x7fffffff;
}
INLINE float of_key(int64_t key) {
    const int32_t bits = (int32_t)(key >= 0 ? key : key ^ 0x7fffffff);
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static float highest(const float *x, int64_t n) {
    float top = -INFINITY;
#pragma omp simd reduction(max : top)
    for (int64_t i = 0; i < n; i++) top = x[i] > top ? x[i] : top;
    return top;
}

static int64_t first_at(const float *x, int64_t n, float value) {
    for (int64_t i = 0; i < n; i++)
        if (x[i] == value) return i;
    return 0;
}

static int all_numbers(const float *x, int64_t n) {
    int others = 0;
#pragma omp simd reduction(| : others)
    for (int64_t i = 0; i < n; i++) others |= x[i] != x[i];
    return !others;
}

/* the sum of weights whose logits are above v; without weights, how many there are */
static double above(const float *x, const float *weights, int64_t n, float v) {
    double sum = 0;
    for (int64_t first = 0; first < n; first += BLOCK) {
        const int64_t last = first + BLOCK < n ? first + BLOCK : n;
        float part = 0;
        if (weights) {
#pragma omp simd reduction(+ : part)
            for (int64_t i = first; i < last; i++) part += x[i] > v ? weights[i] : 0.0f;
        } else {
#pragma omp simd reduction(+ : part)
            for (int64_t i = first; i < last; i++) part += x[i] > v ? 1.0f : 0.0f;
        }
        sum += part;
    }
    return sum;
}

/* the lowest v of which less than `limit` lies above (`or_equal`: not more): a logit of the row, or the lowest number */
static float threshold(const float *x, const float *weights, int64_t n, float top, double limit, int or_equal) {
    int64_t low = key_of(-INFINITY), high = key_of(top);
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        const double sum = above(x, weights, n, of_key(middle));
        if (sum < limit || (or_equal && sum == limit)) high = middle;
        else low = middle + 1;
    }
    return of_key(low);
}

/* weights outside of the smallest set of likely tokens that holds `top_p` of all become 0; of tokens alike at its border the first stay */
static void nucleus(const float *x, float *weights, float *some_x, float *some_weights, int64_t V, float top, const Choice *choice) {
    const double total = above(x, weights, V, -INFINITY), limit = choice->top_p * total;
    const float least = (float)(0.5 * (total - limit) / (double)V); /* all that are lighter weigh less than is left out */
    int64_t n = 0;
    for (int64_t i = 0; i < V; i++) {
        some_x[n] = x[i];
        some_weights[n] = weights[i];
        n += weights[i] >= least;
    }
    const float border = threshold(some_x, some_weights, n, top, limit, !choice->keep_crossing);
    const double left = limit - above(some_x, some_weights, n, border), each = weights[first_at(x, V, border)];
    double stay = each > 0 ? left / each : 0;
    stay = choice->keep_crossing ? ceil(stay) : floor(stay);
    if (border == top && stay < 1) stay = 1;
    for (int64_t i = 0; i < V; i++) {
        const int at_border = x[i] == border;
        weights[i] = x[i] > border || (at_border && stay >= 1) ? weights[i] : 0.0f;
        stay -= at_border;
    }
}

static int64_t drawn(const float *weights, int64_t V, double part) {
    double total = 0, before = 0;
    for (int64_t first = 0; first < V; first += BLOCK) {
        float sum = 0;
        const int64_t last = first + BLOCK < V ? first + BLOCK : V;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = first; i < last; i++) sum += weights[i];
        total += sum;
    }
    int64_t found = 0;
    for (int64_t first = 0; first < V; first += BLOCK) {
        float sum = 0;
        const int64_t last = first + BLOCK < V ? first + BLOCK : V;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = first; i < last; i++) sum += weights[i];
        if (sum > 0 && before + sum > part * total) {
            double through = before;
            for (int64_t i = first; i < last; i++) {
                through += weights[i];
                if (weights[i] > 0) found = i;
                if (through > part * total) break;
            }
            return found;
        }
        if (sum > 0)
            for (int64_t i = first; i < last; i++) found = weights[i] > 0 ? i : found; /* if rounding hides the end */
        before += sum;
    }
    return found;
}

/* -1 where there is nothing to choose: logits that are no numbers, or none above -inf */
static int64_t chosen(const float *x, float *weights, float *some_x, float *some_weights, int64_t V, const Choice *choice) {
    const float top = highest(x, V);
    if (!isfinite(top) || !all_numbers(x, V)) return -1;
    if (choice->temperature == 0) return first_at(x, V, top);
    const float inverse = 1.0f / choice->temperature;
    float least = -INFINITY;
    if (choice->top_k > 0 && choice->top_k < V) least = threshold(x, 0, V, top, choice->top_k, 0);
    for (int64_t i = 0; i < V; i++) {
        const float scaled = (x[i] - top) * inverse;
        weights[i] = scaled >= -87.0f && x[i] >= least ? exponential(scaled) : 0.0f;
    }
    if (choice->top_p < 1) nucleus(x, weights, some_x, some_weights, V, top, choice);
    if (choice->min_p > 0)
        for (int64_t i = 0; i < V; i++) weights[i] = weights[i] >= fminf(choice->min_p, 1) ? weights[i] : 0.0f; /* the likeliest has 1 */
    return drawn(weights, V, choice->drawn);
}

/* 0 when done; 1 when there was no memory */
int choose_tokens(int64_t *ids, const float *logits, const Choice *choices, int64_t R, int64_t V, int threads) {
    int failed = 0;
#pragma omp parallel num_threads(threads)
    {
        float *weights = aligned_alloc(64, (size_t)((V + 15) / 16 * 16) * 3 * sizeof(float)), *some_x = weights + (V + 15) / 16 * 16;
        if (!weights) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(dynamic)
        for (int64_t r = 0; r < R; r++)
            if (weights) ids[r] = chosen(logits + r * V, weights, some_x, some_x + (V + 15) / 16 * 16, V, choices + r);
        free(weights);
    }
    return failed;
}

/* log of the sum of exp, row by row */
void log_sums(float *sums, const float *logits, int64_t R, int64_t V, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t r = 0; r < R; r++) {
        const float *x = logits + r * V, top = highest(x, V);
        double total = 0;
        for (int64_t first = 0; first < V; first += BLOCK) {
            float sum = 0;
            const int64_t last = first + BLOCK < V ? first + BLOCK : V;
#pragma omp simd reduction(+ : sum)
            for (int64_t i = first; i < last; i++) sum += x[i] - top >= -87.0f ? exponential(x[i] - top) : 0.0f;
            total += sum;
        }
        sums[r] = all_numbers(x, V) ? top + (float)log(total) : NAN;
    }
}
