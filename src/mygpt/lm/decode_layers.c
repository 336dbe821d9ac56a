/* The layers of a Llama-shaped decoder for a few new tokens, one after the other, in one call (decode_layers.py).

   A decoding step of a small model computes so little in each operation that setting up takes longer: a product of 16 rows, a norm, a rotation, thirty times over.
   Here two or more threads go through all layers together and meet after each of six stages. Weights and cache are read once, and what is wanted next is
   fetched while this is multiplied, so a step takes about as long as reading them.

   What is stored (weights, cache, masks, hidden states between the stages, packed) is of one format, bfloat16 or float32; this file is compiled for each.
   Sums, norms, the rotation, softmax and the gate are float32; in bfloat16 they are rounded once where the model elsewhere rounds after every operation.

   Dims: N rows (trees x Q new tokens), D hidden, H key/value heads, G query heads of each, E head size, F width of the gate, S slots of a tree's cache.

   A low-rank update beside a weight (LoRA) is computed with it: what it makes of the operand is rounded to the stored format, its sums are float32.

   Source: RMSNorm, Zhang and Sennrich 2019, arXiv:1910.07467, equation 4; rotary embedding, Su et al. 2021, arXiv:2104.09864, equation 34; gate, Shazeer 2020,
   arXiv:2002.05202; updates, Hu et al. 2021, arXiv:2106.09685, equation 3. */

#include <omp.h>
#include <stdlib.h>

#include PRODUCTS /* tile_products.h or float_products.h: the format of all that is stored, `real`, and products in it */

#include "attention_head.h"

typedef struct { /* an update beside a weight: y += factor B (A x), A (rank, K), B (F, rank); rank 0 for none, else a multiple of 16 */
    const real *a, *b;
    int64_t rank;
    double factor;
} Update;

typedef struct { /* biases may be 0 */
    const real *norm, *q, *k, *v, *o, *q_bias, *k_bias, *v_bias, *o_bias, *norm_after, *gate, *up, *down, *gate_bias, *up_bias, *down_bias;
    int64_t kind; /* of its mask */
    Update on_q, on_k, on_v, on_o, on_gate, on_up, on_down;
} Layer;

typedef struct { /* of one layer in one lane: (trees, H, slots, E) each, contiguous */
    real *keys, *values;
    int64_t slots;
} Kept;

typedef struct { /* neighbouring trees whose caches are as long: `length` slots are taken, the new tokens come behind them */
    int64_t first_tree, length;
} Lane;

typedef struct { /* added to scores; 0 where a token may look, lowest where not: (trees, Q, S of the longest lane) */
    const real *added;
    int64_t by_tree, by_token;
} Mask;

typedef struct {
    int64_t layers, N, Q, D, H, G, E, F, lanes, kinds;
    float epsilon, scale;
    int32_t threads, has_tiles;
    real *hidden; /* (N, D): in and out */
    const real *cosines, *sines; /* (N, E) */
    const Layer *layer;
    const Kept *kept; /* (layers, lanes) */
    const Lane *lane;
    const Mask *mask;
} Step;

typedef struct { /* of all threads */
    int64_t tiles, most_S, most_rank;
    real *stream; /* packed hidden states: what every layer adds to */
    float *projected; /* (16 * tiles, (G + 2) H E): queries, keys, values */
    real *queries; /* (N, G H E), rotated */
    real *mixed; /* (N, G H E) */
    real *gated; /* packed (16 * tiles, F) */
    int32_t *seen, *num_seen; /* (kinds, N, most_S): the slots that each token looks at; (kinds, N) */
} Shared;

typedef struct { /* of one thread */
    int64_t number, threads;
    real *packed; /* the operand of the next product */
    float *made, *made_up, *more; /* (16, 16 * tiles) */
    real *inner[3]; /* packed, of a width of most_rank: what updates make of the operand before they widen it again */
    float *scores;
} Own;

/* sixteen outputs each: those of thread `number` */
INLINE int64_t first_of(int64_t blocks, int64_t number, int64_t threads) { return blocks * number / threads; }

/* ---- stages ------------------------------------------------------------------------------------------------------------------------------------- */

static void norm(real *packed, const real *stream, const real *weight, int64_t D, int64_t tiles, float epsilon) {
    for (int64_t t = 0; t < tiles; t++) {
        __m512 x[SIDE], sum[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
        for (int64_t d = 0; d < D; d += SIDE) {
            read_block(x, stream + (t * D + d) * SIDE);
            for (int i = 0; i < SIDE; i++) sum[i % 2] = _mm512_fmadd_ps(x[i], x[i], sum[i % 2]);
        }
        const __m512 mean = _mm512_mul_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_set1_ps(1.0f / (float)D));
        const __m512 inverse = _mm512_div_ps(_mm512_set1_ps(1.0f), _mm512_sqrt_ps(_mm512_add_ps(mean, _mm512_set1_ps(epsilon))));
        for (int64_t d = 0; d < D; d += SIDE) {
            read_block(x, stream + (t * D + d) * SIDE);
            for (int i = 0; i < SIDE; i++) x[i] = _mm512_mul_ps(x[i], _mm512_mul_ps(inverse, _mm512_set1_ps(one(weight[d + i]))));
            write_block(packed + (t * D + d) * SIDE, x);
        }
    }
}

/* inner = factor A x. So little that every thread computes all of it for itself, rather than wait for the others */
static void narrowed(const Step *s, const Own *own, real *inner, const Update *update, int64_t K, const real *packed) {
    const int64_t tiles = (s->N + SIDE - 1) / SIDE;
    const __m512 factor = _mm512_set1_ps((float)update->factor);
    for (int64_t i = 0; i < update->rank; i += SIDE) {
        sixteen(own->more, update->a + i * K, K, packed, s->N, 0, s->has_tiles);
        for (int64_t t = 0; t < tiles; t++) {
            __m512 x[SIDE];
            for (int r = 0; r < SIDE; r++) x[r] = _mm512_mul_ps(factor, _mm512_load_ps(own->more + (r * tiles + t) * SIDE));
            write_block(inner + (t * update->rank + i) * SIDE, x);
        }
    }
}

/* made += B inner, for sixteen outputs from `first` on */
INLINE void widened(const Step *s, const Own *own, float *made, const Update *update, int64_t first, const real *inner) {
    if (!update->rank) return;
    const int64_t width = (s->N + SIDE - 1) / SIDE * SIDE;
    sixteen(own->more, update->b + first * update->rank, update->rank, inner, s->N, 0, s->has_tiles && update->rank % (2 * SIDE) == 0);
    for (int64_t i = 0; i < SIDE * width; i += SIDE) _mm512_store_ps(made + i, _mm512_add_ps(_mm512_load_ps(made + i), _mm512_load_ps(own->more + i)));
}

/* queries, keys and values of this thread's outputs, row by row */
static void project(const Step *s, const Shared *all, const Own *own, const Layer *layer) {
    const int64_t q_blocks = s->G * s->H * s->E / SIDE, k_blocks = s->H * s->E / SIDE, blocks = q_blocks + 2 * k_blocks;
    const real *w[3] = {layer->q, layer->k, layer->v}, *bias[3] = {layer->q_bias, layer->k_bias, layer->v_bias};
    const Update *update[3] = {&layer->on_q, &layer->on_k, &layer->on_v};
    for (int part = 0; part < 3; part++) narrowed(s, own, own->inner[part], update[part], s->D, own->packed);
    const int64_t begin[4] = {0, q_blocks, q_blocks + k_blocks, blocks};
    const int64_t last = first_of(blocks, own->number + 1, own->threads);
    for (int64_t i = first_of(blocks, own->number, own->threads); i < last; i++) {
        const int part = i < begin[1] ? 0 : i < begin[2] ? 1 : 2, next = i + 1 < begin[1] ? 0 : i + 1 < begin[2] ? 1 : 2;
        const real *ahead = i + 1 < last ? w[next] + (i + 1 - begin[next]) * SIDE * s->D : 0;
        sixteen(own->made, w[part] + (i - begin[part]) * SIDE * s->D, s->D, own->packed, s->N, ahead, s->has_tiles);
        widened(s, own, own->made, update[part], (i - begin[part]) * SIDE, own->inner[part]);
        const __m512 added = bias[part] ? widen(bias[part] + (i - begin[part]) * SIDE) : _mm512_setzero_ps();
        for (int64_t t = 0; t < all->tiles; t++) {
            __m512i block[SIDE];
            for (int r = 0; r < SIDE; r++) block[r] = _mm512_load_si512(own->made + (r * all->tiles + t) * SIDE);
            transpose(block);
            for (int r = 0; r < SIDE; r++)
                _mm512_store_ps(all->projected + ((t * SIDE + r) * blocks + i) * SIDE, _mm512_add_ps(_mm512_castsi512_ps(block[r]), added));
        }
    }
}

INLINE void rotate(real *to, const float *x, const real *cosines, const real *sines, int64_t E) {
    const int64_t M = E / 2;
    for (int64_t e = 0; e < M; e += SIDE) {
        const __m512 a = _mm512_loadu_ps(x + e), b = _mm512_loadu_ps(x + e + M);
        narrow(to + e, _mm512_fmsub_ps(a, widen(cosines + e), _mm512_mul_ps(b, widen(sines + e))));
        narrow(to + e + M, _mm512_fmadd_ps(b, widen(cosines + e + M), _mm512_mul_ps(a, widen(sines + e + M))));
    }
}

INLINE int64_t lane_of(const Step *s, int64_t tree) {
    int64_t lane = s->lanes - 1;
    while (s->lane[lane].first_tree > tree) lane--;
    return lane;
}

/* row n: its queries rotated, its keys and values into the cache */
static void append(const Step *s, const Shared *all, const Kept *kept, int64_t n) {
    const int64_t E = s->E, heads = s->G * s->H, tree = n / s->Q, at = lane_of(s, tree);
    const Lane *lane = s->lane + at;
    const float *x = all->projected + n * (heads + 2 * s->H) * E;
    for (int64_t h = 0; h < heads; h++) rotate(all->queries + (n * heads + h) * E, x + h * E, s->cosines + n * E, s->sines + n * E, E);
    for (int64_t h = 0; h < s->H; h++) {
        const int64_t slot = (((tree - lane->first_tree) * s->H + h) * kept[at].slots + lane->length + n % s->Q) * E;
        rotate(kept[at].keys + slot, x + (heads + h) * E, s->cosines + n * E, s->sines + n * E, E);
        for (int64_t e = 0; e < E; e += SIDE) narrow(kept[at].values + slot + e, _mm512_loadu_ps(x + (heads + s->H + h) * E + e));
    }
}

/* row n, key/value head h: what its query heads make of the slots that the row sees */
static void mix(const Step *s, const Shared *all, const Own *own, const Kept *kept, int64_t kind, int64_t n, int64_t h) {
    const int64_t E = s->E, tree = n / s->Q, at = lane_of(s, tree), from = ((tree - s->lane[at].first_tree) * s->H + h) * kept[at].slots * E;
    const int64_t row = kind * s->N + n;
    float mixed[AT_ONCE * MOST_D] = {0};
    for (int64_t g = 0; g < s->G; g += AT_ONCE) {
        const int rows = (int)(s->G - g < AT_ONCE ? s->G - g : AT_ONCE);
        const int64_t first = (n * s->G * s->H + h * s->G + g) * E;
        if (all->num_seen[row])
            attend(mixed, own->scores, rows, all->queries + first, kept[at].keys + from, E, kept[at].values + from, E, 0, all->seen + row * all->most_S,
                   all->num_seen[row], (int)E, s->scale);
        for (int64_t e = 0; e < rows * E; e += SIDE) narrow(all->mixed + first + e, _mm512_loadu_ps(mixed + e));
    }
}

/* stream += W x + bias, for this thread's outputs */
static void add(const Step *s, const Shared *all, const Own *own, const real *w, const real *bias, const Update *update, int64_t K, const real *packed) {
    narrowed(s, own, own->inner[0], update, K, packed);
    const int64_t blocks = s->D / SIDE, last = first_of(blocks, own->number + 1, own->threads), tiles = all->tiles;
    for (int64_t i = first_of(blocks, own->number, own->threads); i < last; i++) {
        sixteen(own->made, w + i * SIDE * K, K, packed, s->N, i + 1 < last ? w + (i + 1) * SIDE * K : 0, s->has_tiles);
        widened(s, own, own->made, update, i * SIDE, own->inner[0]);
        for (int64_t t = 0; t < tiles; t++) {
            real *at = all->stream + (t * s->D + i * SIDE) * SIDE;
            __m512 x[SIDE];
            read_block(x, at);
            for (int r = 0; r < SIDE; r++) {
                const __m512 more = _mm512_load_ps(own->made + (r * tiles + t) * SIDE);
                x[r] = _mm512_add_ps(x[r], bias ? _mm512_add_ps(more, _mm512_set1_ps(one(bias[i * SIDE + r]))) : more);
            }
            write_block(at, x);
        }
    }
}

INLINE __m512 silu(__m512 x) {
    const __m512 e = exp_nonpositive(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_abs_ps(x))), above = _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0f), e));
    return _mm512_mask_mul_ps(above, _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ), above, e);
}

/* gated = silu(W x + bias) * (W' x + bias'), for this thread's outputs */
static void gate(const Step *s, const Shared *all, const Own *own, const Layer *layer) {
    const int64_t blocks = s->F / SIDE, last = first_of(blocks, own->number + 1, own->threads), tiles = all->tiles, D = s->D;
    narrowed(s, own, own->inner[0], &layer->on_gate, D, own->packed);
    narrowed(s, own, own->inner[1], &layer->on_up, D, own->packed);
    for (int64_t i = first_of(blocks, own->number, own->threads); i < last; i++) {
        const int64_t at = i * SIDE * D, next = i + 1 < last ? at + SIDE * D : at;
        sixteen(own->made, layer->gate + at, D, own->packed, s->N, layer->gate + next, s->has_tiles);
        sixteen(own->made_up, layer->up + at, D, own->packed, s->N, layer->up + next, s->has_tiles);
        widened(s, own, own->made, &layer->on_gate, i * SIDE, own->inner[0]);
        widened(s, own, own->made_up, &layer->on_up, i * SIDE, own->inner[1]);
        for (int64_t t = 0; t < tiles; t++) {
            __m512 y[SIDE];
            for (int r = 0; r < SIDE; r++) {
                __m512 g = _mm512_load_ps(own->made + (r * tiles + t) * SIDE), u = _mm512_load_ps(own->made_up + (r * tiles + t) * SIDE);
                if (layer->gate_bias) g = _mm512_add_ps(g, _mm512_set1_ps(one(layer->gate_bias[i * SIDE + r])));
                if (layer->up_bias) u = _mm512_add_ps(u, _mm512_set1_ps(one(layer->up_bias[i * SIDE + r])));
                y[r] = _mm512_mul_ps(silu(g), u);
            }
            write_block(all->gated + (t * s->F + i * SIDE) * SIDE, y);
        }
    }
}

/* ---- all of it ---------------------------------------------------------------------------------------------------------------------------------- */

/* which slots row n sees under masks of this kind */
static void look(const Step *s, const Shared *all, int64_t kind, int64_t n) {
    const int64_t tree = n / s->Q, S = s->lane[lane_of(s, tree)].length + s->Q, row = kind * s->N + n;
    const real *added = s->mask[kind].added + tree * s->mask[kind].by_tree + n % s->Q * s->mask[kind].by_token;
    int32_t *seen = all->seen + row * all->most_S, num_seen = 0;
    for (int32_t i = 0; i < S; i++) {
        seen[num_seen] = i;
        num_seen += added[i] == 0;
    }
    all->num_seen[row] = num_seen;
}

static void run(const Step *s, const Shared *all, const Own *own) {
    const int64_t width = s->G * s->H * s->E;
    begin_tiles(s->has_tiles);
#pragma omp for
    for (int64_t i = 0; i < s->kinds * s->N; i++) look(s, all, i / s->N, i % s->N);
    for (int64_t l = 0; l < s->layers; l++) {
        const Layer *layer = s->layer + l;
        const Kept *kept = s->kept + l * s->lanes;
        norm(own->packed, all->stream, layer->norm, s->D, all->tiles, s->epsilon);
        project(s, all, own, layer);
#pragma omp barrier
#pragma omp for schedule(static)
        for (int64_t n = 0; n < s->N; n++) append(s, all, kept, n);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < s->N * s->H; i++) mix(s, all, own, kept, layer->kind, i / s->H, i % s->H);
        pack(own->packed, all->mixed, width, s->N, width);
        add(s, all, own, layer->o, layer->o_bias, &layer->on_o, width, own->packed);
#pragma omp barrier
        norm(own->packed, all->stream, layer->norm_after, s->D, all->tiles, s->epsilon);
        gate(s, all, own, layer);
#pragma omp barrier
        add(s, all, own, layer->down, layer->down_bias, &layer->on_down, s->F, all->gated);
#pragma omp barrier
    }
    end_tiles(s->has_tiles);
}

/* the next piece of `bytes` bytes */
INLINE void *piece(uintptr_t *from, int64_t bytes) {
    void *given = (void *)*from;
    *from += (uintptr_t)(bytes + 63) / 64 * 64;
    return given;
}

static uintptr_t share_out(const Step *s, Shared *all, uintptr_t from) {
    const int64_t rows = all->tiles * SIDE, width = s->G * s->H * s->E;
    all->stream = piece(&from, rows * s->D * (int64_t)sizeof(real));
    all->projected = piece(&from, rows * (width + 2 * s->H * s->E) * 4);
    all->queries = piece(&from, s->N * width * (int64_t)sizeof(real));
    all->mixed = piece(&from, s->N * width * (int64_t)sizeof(real));
    all->gated = piece(&from, rows * s->F * (int64_t)sizeof(real));
    all->seen = piece(&from, s->kinds * s->N * all->most_S * 4);
    all->num_seen = piece(&from, s->kinds * s->N * 4);
    return from;
}

static uintptr_t share_out_own(const Step *s, const Shared *all, Own *own, uintptr_t from) {
    const int64_t rows = all->tiles * SIDE, width = s->G * s->H * s->E;
    own->packed = piece(&from, rows * (s->D > width ? s->D : width) * (int64_t)sizeof(real));
    own->made = piece(&from, rows * SIDE * 4);
    own->made_up = piece(&from, rows * SIDE * 4);
    own->more = piece(&from, rows * SIDE * 4);
    for (int i = 0; i < 3; i++) own->inner[i] = piece(&from, rows * all->most_rank * (int64_t)sizeof(real));
    own->scores = piece(&from, AT_ONCE * all->most_S * 4);
    return from;
}

/* 0 when done; 1 when there was no memory. E is a multiple of 32 and at most 128; D, G H E and F multiples of 32; N at most 16 MOST_TILES. */
int decode_layers(const Step *s) {
    Shared all = {.tiles = (s->N + SIDE - 1) / SIDE};
    for (int64_t i = 0; i < s->lanes; i++)
        if (all.most_S < s->lane[i].length + s->Q) all.most_S = s->lane[i].length + s->Q;
    all.most_S = (all.most_S / SIDE + 1) * SIDE;
    for (int64_t l = 0; l < s->layers; l++)
        for (const Update *one = &s->layer[l].on_q; one <= &s->layer[l].on_down; one++)
            if (all.most_rank < one->rank) all.most_rank = one->rank;
    Own sizes;
    const uintptr_t shared_bytes = share_out(s, &all, 0), own_bytes = share_out_own(s, &all, &sizes, 0);
    void *memory = aligned_alloc(64, shared_bytes + (uintptr_t)s->threads * own_bytes);
    if (!memory) return 1;
    const uintptr_t owned = share_out(s, &all, (uintptr_t)memory);
    pack(all.stream, s->hidden, s->D, s->N, s->D);
#pragma omp parallel num_threads(s->threads)
    {
        Own own = {.number = omp_get_thread_num(), .threads = omp_get_num_threads()};
        share_out_own(s, &all, &own, owned + (uintptr_t)own.number * own_bytes);
        run(s, &all, &own);
    }
    unpack(s->hidden, all.stream, s->N, s->D);
    free(memory);
    return 0;
}

int tiles_allowed(void) { return ask_for_tiles(); }

/* y = x W' in float32: x is (N, K), W (F, K), y (N, F). K is a multiple of 32, F of 16. 0 when done; 1 when there was no memory */
int product(float *y, const real *x, const real *w, int64_t N, int64_t K, int64_t F, int threads, int has_tiles) {
    const int64_t tiles = (N + SIDE - 1) / SIDE;
    real *packed = aligned_alloc(64, (size_t)(tiles * SIDE * K) * sizeof(real));
    if (!packed) return 1;
    pack(packed, x, K, N, K);
#pragma omp parallel num_threads(threads)
    {
        float made[SIDE * SIDE * MOST_TILES] __attribute__((aligned(64)));
        begin_tiles(has_tiles);
#pragma omp for schedule(static)
        for (int64_t f = 0; f < F; f += SIDE) {
            sixteen(made, w + f * K, K, packed, N, w + (f + SIDE < F ? f + SIDE : f) * K, has_tiles);
            for (int64_t t = 0; t < tiles; t++) {
                __m512i block[SIDE];
                for (int i = 0; i < SIDE; i++) block[i] = _mm512_load_si512(made + (i * tiles + t) * SIDE);
                transpose(block);
                for (int i = 0; i < SIDE && t * SIDE + i < N; i++) _mm512_storeu_si512(y + (t * SIDE + i) * F + f, block[i]);
            }
        }
        end_tiles(has_tiles);
    }
    free(packed);
    return 0;
}
