/* Products of a matrix of weights with a few rows of activations in bfloat16, for processors with AVX-512 BF16, faster where they have AMX tiles.

   y' = W x': sixteen rows of W as they lie in memory are one operand, so weights are neither packed nor copied, and each is read once for all rows. The few
   activations are the other operand, packed: pairs of neighbours of a row in one 32-bit number, sixteen rows side by side, [tile][K / 2][16]. What comes out
   has the rows of x side by side too, so that norms, gates and sums work on sixteen of them at once and leave the next product's operand. Sums are float32;
   each number is one chain of sums over K, whatever runs beside it: a row's result depends on no other row, nor on the number of threads.

   Dims: K width of x (a multiple of 32), F width of y (a multiple of 16), tiles: of sixteen rows of x. */

#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include "bf16.h"

enum { MOST_TILES = 8 };

/* two vectors of float as pairs of bfloat16, and back */
INLINE __m512i paired(__m512 even, __m512 odd) {
    const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(even)), high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(odd));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}
INLINE __m512 even_of(__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
INLINE __m512 odd_of(__m512i pairs) { return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32((int)0xffff0000))); }

/* a block of sixteen rows and sixteen columns of what is packed: x[column] has the rows side by side */
INLINE void read_block(__m512 *x, const bf16 *block) {
    for (int i = 0; i < SIDE; i += 2) {
        const __m512i pairs = _mm512_load_si512(block + i * SIDE);
        x[i] = even_of(pairs);
        x[i + 1] = odd_of(pairs);
    }
}
INLINE void write_block(bf16 *block, const __m512 *x) {
    for (int i = 0; i < SIDE; i += 2) _mm512_store_si512(block + i * SIDE, paired(x[i], x[i + 1]));
}

/* rows (N, K), `stride` apart, packed, with zeros behind them to the end of a tile; and the other way round */
static inline void pack(bf16 *packed, const bf16 *rows, int64_t stride, int64_t N, int64_t K) {
    for (int64_t first = 0; first < N; first += SIDE)
        for (int64_t k = 0; k < K; k += 2 * SIDE) {
            __m512i x[SIDE];
            for (int i = 0; i < SIDE; i++) x[i] = first + i < N ? _mm512_loadu_si512(rows + (first + i) * stride + k) : _mm512_setzero_si512();
            transpose(x);
            for (int i = 0; i < SIDE; i++) _mm512_store_si512(packed + (first / SIDE * K + k + 2 * i) * SIDE, x[i]);
        }
}

static inline void unpack(bf16 *rows, const bf16 *packed, int64_t N, int64_t K) {
    for (int64_t first = 0; first < N; first += SIDE)
        for (int64_t k = 0; k < K; k += 2 * SIDE) {
            __m512i x[SIDE];
            for (int i = 0; i < SIDE; i++) x[i] = _mm512_load_si512(packed + (first / SIDE * K + k + 2 * i) * SIDE);
            transpose(x);
            for (int i = 0; i < SIDE && first + i < N; i++) _mm512_storeu_si512(rows + (first + i) * K + k, x[i]);
        }
}

/* ---- sixteen rows of W against N packed rows: made is (16, 16 * tiles). `ahead` is what will be wanted next, fetched meanwhile ------------------------------ */

INLINE void fetch(const bf16 *ahead, int64_t k) {
    for (int i = 0; i < SIDE; i++) _mm_prefetch((const char *)(ahead + k * SIDE + 2 * SIDE * i), _MM_HINT_T1);
}

INLINE void by_vectors(float *made, const int64_t width, const int rows, const int n, const bf16 *w, int64_t K, const bf16 *packed, const bf16 *ahead) {
    __m512 sum[SIDE];
    for (int i = 0; i < rows * n; i++) sum[i] = _mm512_setzero_ps();
    for (int64_t k = 0; k < K; k += 2) {
        __m512bh x[2];
        for (int t = 0; t < n; t++) x[t] = (__m512bh)_mm512_load_si512(packed + (t * K + k) * SIDE);
        for (int r = 0; r < rows; r++) {
            const __m512bh pair = (__m512bh)_mm512_set1_epi32(*(const int32_t *)(w + r * K + k));
            for (int t = 0; t < n; t++) sum[r * n + t] = _mm512_dpbf16_ps(sum[r * n + t], pair, x[t]);
        }
        if (ahead && k % 32 == 0) fetch(ahead, k);
    }
    for (int r = 0; r < rows; r++)
        for (int t = 0; t < n; t++) _mm512_store_ps(made + r * width + t * SIDE, sum[r * n + t]);
}

#ifdef __AMX_BF16__
static const uint8_t SETTING[64] __attribute__((aligned(64))) = {[0] = 1, [16] = 64, [18] = 64, [20] = 64, [22] = 64, [24] = 64, [26] = 64, [28] = 64,
    [30] = 64, [48] = 16, [49] = 16, [50] = 16, [51] = 16, [52] = 16, [53] = 16, [54] = 16, [55] = 16}; /* eight tiles of 16 x 64 bytes */

INLINE void by_tiles(float *made, const int64_t width, const int n, const bf16 *w, int64_t K, const bf16 *packed, const bf16 *ahead) {
    _tile_zero(0);
    if (n > 1) _tile_zero(1);
    if (n > 2) _tile_zero(2);
    if (n > 3) _tile_zero(3);
    for (int64_t k = 0; k < K; k += 2 * SIDE) {
        const bf16 *x = packed + k * SIDE;
        _tile_loadd(4, w + k, K * 2);
        _tile_loadd(5, x, 64);
        _tile_dpbf16ps(0, 4, 5);
        if (n > 1) {
            _tile_loadd(6, x + K * SIDE, 64);
            _tile_dpbf16ps(1, 4, 6);
        }
        if (n > 2) {
            _tile_loadd(7, x + 2 * K * SIDE, 64);
            _tile_dpbf16ps(2, 4, 7);
        }
        if (n > 3) {
            _tile_loadd(5, x + 3 * K * SIDE, 64);
            _tile_dpbf16ps(3, 4, 5);
        }
        if (ahead) fetch(ahead, k);
    }
    _tile_stored(0, made, width * 4);
    if (n > 1) _tile_stored(1, made + SIDE, width * 4);
    if (n > 2) _tile_stored(2, made + 2 * SIDE, width * 4);
    if (n > 3) _tile_stored(3, made + 3 * SIDE, width * 4);
}
#endif

/* whether the system lets this process use tiles: Linux wants to be asked */
static inline int ask_for_tiles(void) {
#ifdef __AMX_BF16__
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return !syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA);
#else
    return 0;
#endif
}

INLINE void begin_tiles(int has_tiles) {
#ifdef __AMX_BF16__
    if (has_tiles) _tile_loadconfig(SETTING);
#endif
}

INLINE void end_tiles(int has_tiles) {
#ifdef __AMX_BF16__
    if (has_tiles) _tile_release();
#endif
}

static inline void sixteen(float *made, const bf16 *w, int64_t K, const bf16 *packed, int64_t N, const bf16 *ahead, int has_tiles) {
    const int64_t tiles = (N + SIDE - 1) / SIDE, width = tiles * SIDE;
    for (int64_t t = 0; t < tiles;) {
        const bf16 *x = packed + t * K * SIDE;
        const int64_t left = tiles - t;
#ifdef __AMX_BF16__
        if (has_tiles) {
            if (left >= 4) by_tiles(made + t * SIDE, width, 4, w, K, x, ahead);
            else if (left == 3) by_tiles(made + t * SIDE, width, 3, w, K, x, ahead);
            else if (left == 2) by_tiles(made + t * SIDE, width, 2, w, K, x, ahead);
            else by_tiles(made + t * SIDE, width, 1, w, K, x, ahead);
            t += 4;
            ahead = 0;
            continue;
        }
#endif
        if (left == 1) {
            by_vectors(made + t * SIDE, width, SIDE, 1, w, K, x, ahead);
            t += 1;
        } else {
            by_vectors(made + t * SIDE, width, SIDE / 2, 2, w, K, x, ahead);
            by_vectors(made + t * SIDE + SIDE / 2 * width, width, SIDE / 2, 2, w + SIDE / 2 * K, K, x, 0);
            t += 2;
        }
        ahead = 0;
    }
}
