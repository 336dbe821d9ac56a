/* Attention of many queries on AMX tiles, forwards (tile_attention.py).

   Sixteen queries of a head at a time: their scores against the keys they may see, softmax, and the weighted sum of values, all in the core's cache. Keys
   and values of a head are packed once for all its queries (tile_products.h); keys behind the last one that a block of queries sees are skipped.

   Scores, softmax and sums are float32; weights are rounded to bfloat16 for the second product, as in torch's kernel.
   Dims: B sequences, H key/value heads, G query heads of each, Q queries, S keys, D head size (a multiple of 32, at most 128). D is contiguous. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tile_products.h"

#ifdef __AMX_BF16__

typedef struct { /* strides in elements; of the mask, `added` or `seen` or neither (causal) */
    const bf16 *q, *k, *v, *added;
    const uint8_t *seen;
    bf16 *out; /* (B, Q, G H, D), contiguous */
    int64_t B, H, G, Q, S, D, q_b, q_h, q_q, k_b, k_h, k_s, v_b, v_h, v_s, mask_b, mask_q;
    float scale;
    int32_t threads;
} Attention;

typedef struct { /* of one thread; S rounded up to 64 */
    int64_t S;
    bf16 *keys, *values, *queries, *weights;
    float *scores, *mixed;
} Room;

/* values (S, D) with neighbours of a column in one 32-bit number: [S / 32][D / 16][16][16] of them */
static void pack_values(bf16 *packed, const bf16 *values, int64_t stride, int64_t S, int64_t D, int64_t S_padded) {
    for (int64_t s = 0; s < S_padded; s += 2)
        for (int64_t d = 0; d < D; d += SIDE) {
            const __m256i even = s < S ? _mm256_loadu_si256((const __m256i *)(values + s * stride + d)) : _mm256_setzero_si256();
            const __m256i odd = s + 1 < S ? _mm256_loadu_si256((const __m256i *)(values + (s + 1) * stride + d)) : _mm256_setzero_si256();
            const __m512i pairs = _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
            _mm512_store_si512(packed + (((s / 32) * (D / SIDE) + d / SIDE) * SIDE + s % 32 / 2) * 2 * SIDE, pairs);
        }
}

/* how many keys the first to last of these queries see at most, hidden ones between them counted */
static int64_t reach(const Attention *a, int64_t b, int64_t first, int64_t last) {
    if (!a->added && !a->seen) return last + a->S - a->Q + 1;
    int64_t most = 0;
    for (int64_t q = first; q <= last; q++) {
        const int64_t row = b * a->mask_b + q * a->mask_q;
        int64_t s = a->S;
        while (s > most && (a->added ? a->added[row + s - 1] != 0 && one(a->added[row + s - 1]) < -1e30f : !a->seen[row + s - 1])) s--;
        most = s;
    }
    return most;
}

/* one query: weights of `n` keys to the end of their tile, not normalised; returns 1 / their sum, 0 where nothing is seen */
static float soften(bf16 *weights, float *scores, const bf16 *added, const uint8_t *seen, int64_t n, int64_t n_padded, float scale) {
    const __m512 lowest = _mm512_set1_ps(-3.3e38f);
    __m512 top = lowest;
    __mmask16 no_number = 0;
    for (int64_t s = 0; s < n_padded; s += SIDE) {
        const __mmask16 inside = s + SIDE <= n ? 0xffff : s < n ? (__mmask16)((1u << (n - s)) - 1) : 0;
        __m512 x = _mm512_mul_ps(_mm512_loadu_ps(scores + s), _mm512_set1_ps(scale));
        __mmask16 shown = inside;
        if (added) {
            const __m256i bits = _mm256_maskz_loadu_epi16(inside, added + s);
            x = _mm512_add_ps(x, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16)));
        }
        if (seen) shown &= _mm512_test_epi32_mask(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(inside, seen + s)), _mm512_set1_epi32(0xff));
        no_number |= _mm512_mask_cmp_ps_mask(shown, x, x, _CMP_UNORD_Q);
        x = _mm512_max_ps(_mm512_mask_mov_ps(lowest, shown, x), lowest);
        _mm512_storeu_ps(scores + s, x);
        top = _mm512_max_ps(top, x);
    }
    const float highest = _mm512_reduce_max_ps(top);
    if (no_number || highest <= -1e38f) {
        memset(weights, 0, (size_t)n_padded * sizeof(bf16));
        return no_number ? NAN : 0;
    }
    __m512 total = _mm512_setzero_ps();
    for (int64_t s = 0; s < n_padded; s += SIDE) {
        const __m512 w = exp_nonpositive(_mm512_sub_ps(_mm512_loadu_ps(scores + s), _mm512_set1_ps(highest)));
        total = _mm512_add_ps(total, w);
        narrow(weights + s, w);
    }
    return 1.0f / _mm512_reduce_add_ps(total);
}

/* scores (16, n_padded) of sixteen queries against packed keys, four tiles of keys at once */
static void score(const Room *room, int64_t D, int64_t n_padded) {
    for (int64_t s = 0; s < n_padded; s += 4 * SIDE) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t d = 0; d < D; d += 2 * SIDE) {
            const bf16 *keys = room->keys + s * D + d * SIDE;
            _tile_loadd(4, room->queries + d, D * 2);
            _tile_loadd(5, keys, 64);
            _tile_dpbf16ps(0, 4, 5);
            _tile_loadd(6, keys + SIDE * D, 64);
            _tile_dpbf16ps(1, 4, 6);
            _tile_loadd(7, keys + 2 * SIDE * D, 64);
            _tile_dpbf16ps(2, 4, 7);
            _tile_loadd(5, keys + 3 * SIDE * D, 64);
            _tile_dpbf16ps(3, 4, 5);
        }
        _tile_stored(0, room->scores + s, n_padded * 4);
        _tile_stored(1, room->scores + s + SIDE, n_padded * 4);
        _tile_stored(2, room->scores + s + 2 * SIDE, n_padded * 4);
        _tile_stored(3, room->scores + s + 3 * SIDE, n_padded * 4);
    }
}

/* mixed (16, D) = weights (16, n_padded) times packed values, two tiles of columns at once */
static void weigh(const Room *room, int64_t D, int64_t n_padded) {
    for (int64_t d = 0; d < D; d += 2 * SIDE) {
        _tile_zero(0);
        _tile_zero(1);
        for (int64_t s = 0; s < n_padded; s += 2 * SIDE) {
            const bf16 *values = room->values + (s / 32 * (D / SIDE) + d / SIDE) * 2 * SIDE * SIDE;
            _tile_loadd(4, room->weights + s, n_padded * 2);
            _tile_loadd(5, values, 64);
            _tile_dpbf16ps(0, 4, 5);
            _tile_loadd(6, values + 2 * SIDE * SIDE, 64);
            _tile_dpbf16ps(1, 4, 6);
        }
        _tile_stored(0, room->mixed + d, D * 4);
        _tile_stored(1, room->mixed + d + SIDE, D * 4);
    }
}

static void attend_head(const Attention *a, const Room *room, int64_t b, int64_t h) {
    const int64_t D = a->D;
    pack(room->keys, a->k + b * a->k_b + h * a->k_h, a->k_s, a->S, D);
    memset(room->keys + (a->S + SIDE - 1) / SIDE * SIDE * D, 0, (size_t)((room->S - (a->S + SIDE - 1) / SIDE * SIDE) * D) * sizeof(bf16));
    pack_values(room->values, a->v + b * a->v_b + h * a->v_h, a->v_s, a->S, D, room->S);
    for (int64_t first = 0; first < a->Q; first += SIDE) {
        const int64_t rows = a->Q - first < SIDE ? a->Q - first : SIDE, n = reach(a, b, first, first + rows - 1), n_padded = (n + 63) / 64 * 64;
        for (int64_t g = 0; g < a->G; g++) {
            float inverse[SIDE] = {0};
            for (int64_t r = 0; r < rows; r++)
                memcpy(room->queries + r * D, a->q + b * a->q_b + (h * a->G + g) * a->q_h + (first + r) * a->q_q, (size_t)D * sizeof(bf16));
            score(room, D, n_padded);
            for (int64_t r = 0; r < rows; r++) {
                const int64_t mask = b * a->mask_b + (first + r) * a->mask_q, most = a->added || a->seen ? n : first + r + a->S - a->Q + 1;
                inverse[r] = soften(room->weights + r * n_padded, room->scores + r * n_padded, a->added ? a->added + mask : 0, a->seen ? a->seen + mask : 0,
                                    most, n_padded, a->scale);
            }
            weigh(room, D, n_padded);
            for (int64_t r = 0; r < rows; r++) {
                bf16 *to = a->out + (((b * a->Q + first + r) * a->H + h) * a->G + g) * D;
                for (int64_t d = 0; d < D; d += SIDE)
                    narrow(to + d, _mm512_mul_ps(_mm512_loadu_ps(room->mixed + r * D + d), _mm512_set1_ps(inverse[r])));
            }
        }
    }
}

/* 0 when done; 1 when there was no memory for a head */
int tile_attention(const Attention *a) {
    const int64_t S = (a->S + 63) / 64 * 64, D = a->D;
    int failed = 0;
#pragma omp parallel num_threads(a->threads)
    {
        const size_t floats = (size_t)(SIDE * (S + D)), halves = (size_t)(2 * S * D + SIDE * (D + S)); /* each part is whole lines of 64 bytes */
        float *memory = aligned_alloc(64, floats * sizeof(float) + halves * sizeof(bf16));
        Room room = {.S = S, .scores = memory, .mixed = memory + SIDE * S};
        if (memory) {
            room.keys = (bf16 *)(memory + floats);
            room.values = room.keys + S * D;
            room.queries = room.values + S * D;
            room.weights = room.queries + SIDE * D;
            memset(room.queries, 0, (size_t)(SIDE * (D + S)) * sizeof(bf16)); /* queries that are not there */
        } else {
#pragma omp atomic write
            failed = 1;
        }
        begin_tiles(1);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < a->B * a->H; i++)
            if (memory) attend_head(a, &room, i / a->H, i % a->H);
        end_tiles(1);
        free(memory);
    }
    return failed;
}

#endif

int tiles_allowed(void) { return ask_for_tiles(); }
