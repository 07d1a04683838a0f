// The vector part of a block with light layer attention: from the poolings y = GAP(x), s = GAP(s) and
// the state of the recurrent unit to the kernels that dual_dwconv needs. All vectors (B, C).
//
//     a = sigmoid(q k / sqrt(width)) per head, q, k = 1D convolutions of y over the channels
//     h', c', u' = the recurrent unit's step with y,  d = the h of one more step from there with s
//     kx = a V,   ks = lambda (E + d delta)
//
// and, with a norm of running statistics behind them, kx <- keep scale kx + delta, ks <- keep scale ks,
// bias = keep shift. Without a recurrent unit d is 1 and E is 0.

#pragma once

#include "norms.h"
#include "recurrent_unit.h"

namespace mmdla {
namespace {

// q k / sqrt(width) of every head, for its channels, through a sigmoid; q and k are kept if wanted.
template <typename T>
void head_gates(const Tensor& y, const Tensor& query, const Tensor& key, int64_t width, Tensor& a,
                Tensor& q, Tensor& k) {
  const int64_t batch = y.size(0), channels = y.size(1), taps = query.numel();
  const T *py = y.const_data_ptr<T>(), *wq = query.const_data_ptr<T>();
  const T* wk = key.const_data_ptr<T>();
  T *pa = a.data_ptr<T>(), *pq = q.data_ptr<T>(), *pk = k.data_ptr<T>();
  const T scale = T(1) / std::sqrt(T(width));
  for (int64_t b = 0; b < batch; ++b) {
    const T* row = py + b * channels;
    T *rq = pq + b * channels, *rk = pk + b * channels, *ra = pa + b * channels;
    query_key(row, channels, wq, wk, taps, rq, rk);
    for (int64_t first = 0; first < channels; first += width) {
      T sum = 0;
      for (int64_t c = first; c < first + width; ++c) sum += rq[c] * rk[c];
      const T gate = T(1) / (T(1) + std::exp(-sum * scale));
      std::fill_n(ra + first, width, gate);
    }
  }
}

// What is read by pointers has the size that is read.
inline void check_coefficients(const Tensor& y, const Optional& s, const Optional& u,
                               const Optional& c, const Tensor& query, const Tensor& key,
                               const Tensor& value, const Tensor& lambda, const Optional& extract,
                               const std::vector<Tensor>& dsu, const std::vector<Tensor>& norm,
                               int64_t width) {
  const int64_t batch = y.size(0), channels = y.size(1);
  TORCH_CHECK(y.dim() == 2 && y.is_contiguous() && width > 0 && channels % width == 0 &&
                  query.numel() % 2 == 1 && query.numel() == key.numel() &&
                  value.numel() == 9 * channels && lambda.numel() == channels &&
                  norm.size() % 4 == 0 && norm.size() <= 4,
              "mmdla: light_coefficients got arguments of other sizes than those of ", y.sizes());
  if (!extract) return;
  TORCH_CHECK(extract->numel() == 9 * channels && dsu.size() == 8 && s && s->sizes() == y.sizes() &&
                  dsu[0].size(1) == channels && dsu[2].size(0) == 3 * channels &&
                  (!u || (u->size(0) == batch && u->size(1) == 3 * channels)) &&
                  (!c || c->sizes() == y.sizes()),
              "mmdla: light_coefficients got a recurrent unit of another size than ", y.sizes());
}

// kx, ks, bias, h', c', u'; what there is none of is empty.
inline std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> light_coefficients(
    const Tensor& y, const Optional& s, const Optional& u, const Optional& c, const Tensor& query,
    const Tensor& key, const Tensor& value, const Tensor& lambda, const Optional& extract,
    const std::vector<Tensor>& dsu, const std::vector<Tensor>& norm, double eps,
    const Optional& keep, int64_t width, bool first) {
  check_coefficients(y, s, u, c, query, key, value, lambda, extract, dsu, norm, width);
  const int64_t batch = y.size(0), channels = y.size(1);
  const Tensor none = at::empty({0}, y.options());
  Tensor h = none, c_next = none, u_next = none, d = none;
  if (extract) {
    const Context unit = run_unit(at::cat({y, *s}, 0), batch, 1, u, c, Unit(vectors_of(dsu, y)), first);
    h = unit.now.h, c_next = unit.now.c, u_next = unit.u, d = unit.refresh.h;
  }
  Tensor a = at::empty_like(y), q = at::empty_like(y), k = at::empty_like(y);
  Tensor kx = at::empty({batch, channels, 9}, y.options()), ks = at::empty_like(kx);
  const bool folds = !norm.empty();
  Tensor bias = folds ? at::empty_like(y) : none;
  const Tensor wq = vector_of(query, y), wk = vector_of(key, y), v = vector_of(value, y);
  const Tensor l = vector_of(lambda, y), e = extract ? vector_of(*extract, y) : none;
  Tensor scale = none, shift = none, factor = none;
  if (folds) {
    const Affine affine(vectors_of(norm, y), eps, keep, y);
    scale = affine.scale, shift = affine.shift, factor = affine.keep;
  }
  AT_DISPATCH_FLOATING_TYPES(y.scalar_type(), "light_coefficients", [&] {
    head_gates<scalar_t>(y, wq, wk, width, a, q, k);
    const auto *pa = a.const_data_ptr<scalar_t>(), *pv = v.const_data_ptr<scalar_t>();
    const auto* pl = l.const_data_ptr<scalar_t>();
    const auto* pe = extract ? e.const_data_ptr<scalar_t>() : nullptr;
    const auto* pd = extract ? d.const_data_ptr<scalar_t>() : nullptr;
    const auto* ps = folds ? scale.const_data_ptr<scalar_t>() : nullptr;
    const auto* pt = folds ? shift.const_data_ptr<scalar_t>() : nullptr;
    const auto* pf = factor.numel() ? factor.const_data_ptr<scalar_t>() : nullptr;
    auto *px = kx.data_ptr<scalar_t>(), *pk = ks.data_ptr<scalar_t>();
    auto* pb = folds ? bias.data_ptr<scalar_t>() : nullptr;
    for (int64_t b = 0; b < batch; ++b) {
      const scalar_t kept = pf ? pf[b] : scalar_t(1);
      for (int64_t ch = 0; ch < channels; ++ch) {
        const int64_t p = b * channels + ch;
        const scalar_t by = folds ? kept * ps[ch] : scalar_t(1);
        const scalar_t of_x = by * pa[p], of_s = by * pl[ch];
        for (int t = 0; t < 9; ++t) {
          px[9 * p + t] = of_x * pv[9 * ch + t];
          pk[9 * p + t] = pe ? of_s * pe[9 * ch + t] : scalar_t(0);
        }
        pk[9 * p + 4] += of_s * (pd ? pd[p] : scalar_t(1));
        if (folds) {
          px[9 * p + 4] += 1;
          pb[p] = kept * pt[ch];
        }
      }
    }
  });
  // results share no memory, also those that are empty
  const auto own = [&](const Tensor& t) { return t.is_same(none) ? at::empty_like(none) : t; };
  return {kx, ks, own(bias), own(h), own(c_next), own(u_next)};
}

// Gradients of y, s, u, c, query, key, value, lambda, extract, the eight weights of the unit, the
// norm's weight and bias; what there is none of is empty. The forward pass is computed again.
inline std::vector<Tensor> light_coefficients_backward(
    const Optional& dkx, const Optional& dks, const Optional& dbias, const Optional& dh,
    const Optional& dc, const Optional& du, const Tensor& y, const Optional& s, const Optional& u,
    const Optional& c, const Tensor& query, const Tensor& key, const Tensor& value,
    const Tensor& lambda, const Optional& extract, const std::vector<Tensor>& dsu,
    const std::vector<Tensor>& norm, double eps, const Optional& keep, int64_t width, bool first) {
  check_coefficients(y, s, u, c, query, key, value, lambda, extract, dsu, norm, width);
  const int64_t batch = y.size(0), channels = y.size(1), taps = query.numel();
  const Tensor none = at::empty({0}, y.options());
  const Tensor wq = vector_of(query, y), wk = vector_of(key, y), v = vector_of(value, y);
  const Tensor l = vector_of(lambda, y), e = extract ? vector_of(*extract, y) : none;
  const bool folds = !norm.empty();
  Tensor scale = none, mean = none, rstd = none, factor = none;
  if (folds) {
    const std::vector<Tensor> n = vectors_of(norm, y);
    const Affine affine(n, eps, keep, y);
    scale = affine.scale, factor = affine.keep, mean = n[2], rstd = (n[3] + eps).rsqrt();
  }
  std::vector<Tensor> weights;
  std::optional<Unit> unit;
  std::optional<Context> run;
  Tensor d = none;
  if (extract) {
    unit.emplace(vectors_of(dsu, y));
    run.emplace(run_unit(at::cat({y, *s}, 0), batch, 1, u, c, *unit, first));
    d = run->refresh.h;
  }
  Tensor a = at::empty_like(y), q = at::empty_like(y), k = at::empty_like(y);
  const Tensor gx = dkx ? vector_of(*dkx, y) : at::zeros({batch, channels, 9}, y.options());
  const Tensor gs = dks ? vector_of(*dks, y) : at::zeros({batch, channels, 9}, y.options());
  const Tensor gb = dbias && folds ? vector_of(*dbias, y) : none;
  Tensor dy = at::zeros_like(y), dd = extract ? at::empty_like(y) : none;
  Tensor dquery = at::zeros_like(wq), dkey = at::zeros_like(wk), dvalue = at::zeros_like(v);
  Tensor dlambda = at::zeros_like(l), dextract = extract ? at::zeros_like(e) : none;
  Tensor dscale = folds ? at::zeros({channels}, y.options()) : none;
  Tensor dshift = folds ? at::zeros({channels}, y.options()) : none;
  AT_DISPATCH_FLOATING_TYPES(y.scalar_type(), "light_coefficients_backward", [&] {
    head_gates<scalar_t>(y, wq, wk, width, a, q, k);
    const auto *pa = a.const_data_ptr<scalar_t>(), *pv = v.const_data_ptr<scalar_t>();
    const auto *pl = l.const_data_ptr<scalar_t>(), *py = y.const_data_ptr<scalar_t>();
    const auto *pq = q.const_data_ptr<scalar_t>(), *pk = k.const_data_ptr<scalar_t>();
    const auto *pgx = gx.const_data_ptr<scalar_t>(), *pgs = gs.const_data_ptr<scalar_t>();
    const auto* pgb = gb.numel() ? gb.const_data_ptr<scalar_t>() : nullptr;
    const auto* pe = extract ? e.const_data_ptr<scalar_t>() : nullptr;
    const auto* pd = extract ? d.const_data_ptr<scalar_t>() : nullptr;
    const auto* ps = folds ? scale.const_data_ptr<scalar_t>() : nullptr;
    const auto* pf = factor.numel() ? factor.const_data_ptr<scalar_t>() : nullptr;
    const auto *pwq = wq.const_data_ptr<scalar_t>(), *pwk = wk.const_data_ptr<scalar_t>();
    auto *ry = dy.data_ptr<scalar_t>(), *rv = dvalue.data_ptr<scalar_t>();
    auto *rl = dlambda.data_ptr<scalar_t>(), *rq = dquery.data_ptr<scalar_t>();
    auto* rk = dkey.data_ptr<scalar_t>();
    auto* re = extract ? dextract.data_ptr<scalar_t>() : nullptr;
    auto* rd = extract ? dd.data_ptr<scalar_t>() : nullptr;
    auto* rs = folds ? dscale.data_ptr<scalar_t>() : nullptr;
    auto* rt = folds ? dshift.data_ptr<scalar_t>() : nullptr;
    std::vector<scalar_t> da(channels), dq(channels), dk(channels);
    const scalar_t root = scalar_t(1) / std::sqrt(scalar_t(width));
    for (int64_t b = 0; b < batch; ++b) {
      const scalar_t kept = pf ? pf[b] : scalar_t(1);
      for (int64_t ch = 0; ch < channels; ++ch) {
        const int64_t p = b * channels + ch;
        const scalar_t *g_x = pgx + 9 * p, *g_s = pgs + 9 * p;
        scalar_t with_v = 0, with_e = 0;
        for (int t = 0; t < 9; ++t) with_v += g_x[t] * pv[9 * ch + t];
        if (pe) {
          for (int t = 0; t < 9; ++t) with_e += g_s[t] * pe[9 * ch + t];
        }
        with_e += g_s[4] * (pd ? pd[p] : scalar_t(1));
        scalar_t by = 1;
        if (folds) {  // kx, ks before the norm: a v, lambda (e + d delta)
          by = kept * ps[ch];
          rs[ch] += kept * (pa[p] * with_v + pl[ch] * with_e);
          if (pgb) rt[ch] += kept * pgb[p];
        }
        const scalar_t of_v = by * pa[p], of_e = by * pl[ch];
        for (int t = 0; t < 9; ++t) rv[9 * ch + t] += of_v * g_x[t];
        if (re) {
          for (int t = 0; t < 9; ++t) re[9 * ch + t] += of_e * g_s[t];
          rd[p] = of_e * g_s[4];
        }
        da[ch] = by * with_v;
        rl[ch] += by * with_e;
      }
      const scalar_t *row_q = pq + b * channels, *row_k = pk + b * channels;
      const scalar_t *row_a = pa + b * channels, *row_y = py + b * channels;
      for (int64_t begin = 0; begin < channels; begin += width) {
        scalar_t sum = 0;
        for (int64_t ch = begin; ch < begin + width; ++ch) sum += da[ch];
        const scalar_t gate = row_a[begin], g = sum * gate * (1 - gate) * root;
        for (int64_t ch = begin; ch < begin + width; ++ch) {
          dq[ch] = g * row_k[ch];
          dk[ch] = g * row_q[ch];
        }
      }
      query_key_backward(dq.data(), dk.data(), row_y, channels, pwq, pwk, taps, rq, rk,
                         ry + b * channels);
    }
  });
  Tensor ds = none, du_before = none, dc_before = none;
  std::vector<Tensor> dw(8, none);
  if (extract) {
    const UnitGradients found = unit_backward(*run, *unit, !u, dd, dh, dc, du);
    dy.add_(found.inputs.narrow(0, 0, batch));
    ds = found.inputs.narrow(0, batch, batch);
    if (u) du_before = found.u;
    dc_before = found.c, dw = found.weights;
  }
  Tensor dweight = none, dnorm_bias = none;
  if (folds) {
    dnorm_bias = dshift;
    dweight = rstd * (dscale - mean * dshift);
  }
  std::vector<Tensor> result = {dy,     ds,      du_before, c ? dc_before : none,
                                dquery, dkey,    dvalue,    dlambda,
                                dextract};
  result.insert(result.end(), dw.begin(), dw.end());
  result.push_back(dweight);
  result.push_back(dnorm_bias);
  for (Tensor& t : result) t = t.numel() ? t.clone(at::MemoryFormat::Contiguous) : none.clone();
  return result;
}

}  // namespace
}  // namespace mmdla
