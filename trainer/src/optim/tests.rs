use super::*;

fn vars() -> BTreeMap<String, Var> {
    let var = |values: &[f32], shape: &[usize]| {
        Var::from_tensor(&Tensor::from_slice(values, shape, &Device::Cpu).unwrap()).unwrap()
    };
    BTreeMap::from([
        ("head.bias".to_owned(), var(&[0.5, -0.5], &[2])),
        ("head.weight".to_owned(), var(&[1.0, -2.0, 3.0, 4.0], &[2, 2])),
        ("tower.weight".to_owned(), var(&[1.0, 1.0], &[1, 2])),
    ])
}

fn group(prefix: &str, learning_rate: f64, weight_decay: f64) -> ParameterGroup {
    let prefixes = vec![prefix.into()];
    ParameterGroup { prefixes, learning_rate, weight_decay, from_step: 0, until_step: None }
}

/// sum(w^2) / 2 + sum(b): the gradient of w is w, that of b is 1.
fn gradients(vars: &BTreeMap<String, Var>) -> GradStore {
    let weight = vars["head.weight"].sqr().unwrap().sum_all().unwrap();
    let bias = vars["head.bias"].sum_all().unwrap();
    ((weight * 0.5).unwrap() + bias).unwrap().backward().unwrap()
}

fn values(vars: &BTreeMap<String, Var>, name: &str) -> Vec<f32> {
    vars[name].flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn two_steps_equal_the_formula() {
    // By hand, in Python: m = .1 g, v = .001 g^2, so the first step is lr * sign(g); then
    // w -= lr * wd * w before it. Second step from the new w:
    // w, m, v = 1., 0., 0.
    // for t in (1, 2):
    //     g = w; w *= 1 - .1 * .5; m = .9 * m + .1 * g; v = .999 * v + .001 * g * g
    //     w -= .1 * m / (1 - .9**t) / ((v / (1 - .999**t)) ** .5 + 1e-8)
    // -> .85, then .7085...
    let vars = vars();
    let groups = [group("head.", 0.1, 0.5)];
    let mut adam = AdamW::new(&vars, &groups, AdamSettings::default()).unwrap();
    adam.step(&gradients(&vars), |_| true, 1.0, None).unwrap();
    assert!((values(&vars, "head.weight")[0] - 0.85).abs() < 1e-6);
    // No decay on a bias.
    assert!((values(&vars, "head.bias")[0] - 0.4).abs() < 1e-6);
    adam.step(&gradients(&vars), |_| true, 1.0, None).unwrap();
    let (mut w, mut m, mut v) = (1.0_f64, 0.0, 0.0);
    for t in 1..=2 {
        let g = w;
        w *= 1.0 - 0.1 * 0.5;
        m = 0.9 * m + 0.1 * g;
        v = 0.999 * v + 0.001 * g * g;
        let root: f64 = v / (1.0 - 0.999_f64.powi(t));
        w -= 0.1 * m / (1.0 - 0.9_f64.powi(t)) / (root.sqrt() + 1e-8);
    }
    assert!((f64::from(values(&vars, "head.weight")[0]) - w).abs() < 1e-6);
}

#[test]
fn a_variable_in_no_group_is_frozen_and_the_longest_prefix_decides() {
    let vars = vars();
    let groups = [group("head.", 0.1, 0.0), group("head.bias", 0.01, 0.0)];
    let mut adam = AdamW::new(&vars, &groups, AdamSettings::default()).unwrap();
    adam.step(&gradients(&vars), |_| true, 1.0, None).unwrap();
    assert_eq!(values(&vars, "tower.weight"), [1.0, 1.0]);
    assert!((values(&vars, "head.bias")[0] - 0.49).abs() < 1e-6);
}

#[test]
fn a_player_moves_only_what_it_trains() {
    let vars = vars();
    let mut adam = AdamW::new(&vars, &[group("", 0.1, 0.0)], AdamSettings::default()).unwrap();
    adam.step(&gradients(&vars), |name| name.ends_with("bias"), 1.0, None).unwrap();
    assert_eq!(values(&vars, "head.weight"), [1.0, -2.0, 3.0, 4.0]);
    assert!((values(&vars, "head.bias")[0] - 0.4).abs() < 1e-6);
}

#[test]
fn the_norm_before_clipping_is_returned() {
    let vars = vars();
    let mut adam = AdamW::new(&vars, &[group("head.", 0.1, 0.0)], AdamSettings::default()).unwrap();
    // 1 + 4 + 9 + 16 + 1 + 1 = 32
    let norm = adam.step(&gradients(&vars), |_| true, 1.0, Some(1.0)).unwrap();
    assert!((norm - 32.0_f64.sqrt()).abs() < 1e-9);
    let first = adam.state().unwrap()["first.head.weight"].flatten_all().unwrap();
    let first = first.to_vec1::<f32>().unwrap()[0];
    assert!((first - 0.1 / 32.0_f32.sqrt()).abs() < 1e-7);
}

#[test]
fn state_taken_back_continues_the_same() {
    let (one, two) = (vars(), vars());
    let groups = [group("head.", 0.1, 0.1)];
    let mut first = AdamW::new(&one, &groups, AdamSettings::default()).unwrap();
    first.step(&gradients(&one), |_| true, 1.0, None).unwrap();
    for (name, var) in &two {
        var.set(&one[name]).unwrap();
    }
    let mut second = AdamW::new(&two, &groups, AdamSettings::default()).unwrap();
    second.restore(&first.state().unwrap()).unwrap();
    for (adam, vars) in [(&mut first, &one), (&mut second, &two)] {
        adam.step(&gradients(vars), |_| true, 0.5, None).unwrap();
    }
    assert_eq!(values(&one, "head.weight"), values(&two, "head.weight"));
}

/// Moments that were saved on one device go on on another: the same state, in either form.
#[test]
fn state_taken_back_on_another_device_continues_the_same() {
    let (one, two) = (vars(), vars());
    let groups = [group("head.", 0.1, 0.1)];
    let mut in_place = AdamW::new(&one, &groups, AdamSettings::default()).unwrap();
    in_place.step(&gradients(&one), |_| true, 1.0, None).unwrap();
    for (name, var) in &two {
        var.set(&one[name]).unwrap();
    }
    let mut composed = AdamW::new(&two, &groups, AdamSettings::default()).unwrap();
    composed.restore(&in_place.state().unwrap()).unwrap();
    for slot in composed.slots.values_mut() {
        let [first, second] = slot.moments.tensors(&slot.var).unwrap();
        slot.moments = Moments::OnDevice { first, second };
    }
    for (adam, vars) in [(&mut in_place, &one), (&mut composed, &two)] {
        adam.step(&gradients(vars), |_| true, 0.5, Some(1.0)).unwrap();
    }
    let [expected, state] = [&in_place, &composed].map(|adam| adam.state().unwrap());
    assert_eq!(expected.keys().collect::<Vec<_>>(), state.keys().collect::<Vec<_>>());
    assert_eq!(values(&one, "head.weight"), values(&two, "head.weight"));
    for kind in ["first", "second"] {
        let name = format!("{kind}.head.weight");
        let [expected, state] = [&expected, &state].map(|s| s[&name].to_vec2::<f32>().unwrap());
        assert_eq!(expected, state, "{name}");
    }
}

#[test]
fn a_variable_without_gradient_is_named() {
    let vars = vars();
    let adam = AdamW::new(&vars, &[group("", 0.1, 0.0)], AdamSettings::default()).unwrap();
    let error = adam.check_gradients(&gradients(&vars), "encoders", |_| true).unwrap_err();
    assert!(error.to_string().contains("tower.weight"), "{error}");
}

#[test]
fn a_prefix_of_nothing_is_refused() {
    let error = AdamW::new(&vars(), &[group("haed.", 0.1, 0.0)], AdamSettings::default());
    assert!(error.unwrap_err().to_string().contains("haed."));
}
