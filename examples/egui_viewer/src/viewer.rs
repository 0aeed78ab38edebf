//! The application: what is wished, what is being made, what is shown.

use std::path::Path;

use aquatint::frame::Background;
use aquatint::models::bundled::BUNDLED;
use aquatint::{Gpu, wgpu};
use eframe::egui::{self, Color32, Rect, RichText, TextureId, Vec2};
use eframe::egui_wgpu::RenderState;

use crate::answer::{self, Found, Kind};
use crate::watched::{Watched, Wish};

/// All that outlives a frame. Neither knows whether there is a window.
pub struct Viewer {
    gpu: Gpu,
    state: RenderState,
    wish: Wish,
    /// Runs the network anew whenever a run is done.
    always: bool,
    coming: Option<Background<Watched>>,
    shown: Option<Shown>,
    /// What went wrong last.
    error: Option<String>,
}

/// A network with its textures as egui knows them.
struct Shown {
    watched: Watched,
    source: TextureId,
    drawn: Option<TextureId>,
    /// Where the answer was painted last, and at which scale.
    place: Option<(Rect, f32)>,
}

impl Viewer {
    pub fn new(state: RenderState, wish: Wish) -> Viewer {
        let gpu = Gpu::from_wgpu(&state.adapter, state.device.clone(), state.queue.clone());
        // egui asks for none of this, so the callback is ours.
        let lost = gpu.clone();
        state.device.set_device_lost_callback(move |reason, message| {
            lost.set_lost(&format!("{reason:?}: {message}"));
        });
        let mut viewer = Viewer { gpu, state, wish, always: false, coming: None, shown: None, error: None };
        viewer.open();
        viewer
    }

    /// Begins to make what is wished; what is shown stays until it is there.
    fn open(&mut self) {
        let (gpu, wish) = (self.gpu.clone(), self.wish.clone());
        match Background::start(move || Watched::make(&gpu, &wish)) {
            Ok(coming) => self.coming = Some(coming),
            Err(error) => self.error = Some(error.to_string()),
        }
    }

    /// What a frame does besides painting: takes what is made, submits a slice.
    pub fn advance(&mut self, ctx: &egui::Context) {
        if let Some(made) = self.coming.as_mut().and_then(Background::take) {
            self.coming = None;
            match made {
                Ok(watched) => {
                    self.error = None;
                    self.show_instead(watched);
                }
                Err(error) => self.error = Some(error.to_string()),
            }
        }
        if let Some(shown) = &mut self.shown
            && self.error.is_none()
        {
            if self.always && shown.watched.is_settled() {
                shown.watched.again();
            }
            if let Err(error) = shown.watched.advance() {
                self.error = Some(error.to_string());
            }
        }
        if !self.is_settled() {
            ctx.request_repaint();
        }
    }

    fn show_instead(&mut self, watched: Watched) {
        let mut renderer = self.state.renderer.write();
        if let Some(old) = self.shown.take() {
            for id in [Some(old.source), old.drawn].into_iter().flatten() {
                renderer.free_texture(&id);
            }
        }
        let mut known = |texture: &wgpu::Texture| {
            let view = texture.create_view(&Default::default());
            renderer.register_native_texture(self.gpu.device(), &view, wgpu::FilterMode::Linear)
        };
        let (source, drawn) = (known(&watched.source), watched.drawn.as_ref().map(known));
        self.shown = Some(Shown { watched, source, drawn, place: None });
    }

    /// Whether nothing is under way.
    pub fn is_settled(&self) -> bool {
        let failed = self.error.is_some();
        self.coming.is_none()
            && (failed || self.shown.as_ref().is_none_or(|shown| shown.watched.is_settled()))
    }

    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// What is shown, and where its answer was painted at which scale.
    pub fn watched(&self) -> Option<(&Watched, Option<(Rect, f32)>)> {
        self.shown.as_ref().map(|shown| (&shown.watched, shown.place))
    }

    pub fn show(&mut self, ui: &mut egui::Ui) {
        self.take_dropped(ui);
        egui::Panel::top("wish").show(ui, |ui| ui.horizontal_wrapped(|ui| self.show_wish(ui)));
        egui::Panel::bottom("state").show(ui, |ui| self.show_state(ui));
        egui::CentralPanel::default().show(ui, |ui| {
            if let Some(shown) = &mut self.shown {
                shown.paint(ui);
            }
        });
    }

    /// A file that is dropped on the window is a picture or a model.
    fn take_dropped(&mut self, ui: &egui::Ui) {
        let dropped = ui.input(|input| input.raw.dropped_files.clone());
        for path in dropped.iter().map(|file| file.path()) {
            let is_model =
                path.is_dir() || path.extension().is_some_and(|e| e == "onnx" || e == "safetensors");
            let text = path.display().to_string();
            match is_model {
                true => self.wish.model = text,
                false => self.wish.picture = text,
            }
            self.open();
        }
    }

    fn show_wish(&mut self, ui: &mut egui::Ui) {
        // A choice is made at once, text is complete when it is entered.
        let mut complete = false;
        let name =
            |path: &str| Path::new(path).file_name().map_or(path.to_owned(), |f| f.display().to_string());
        ui.label("network");
        egui::ComboBox::from_id_salt("network").selected_text(name(&self.wish.model)).width(150.0).show_ui(
            ui,
            |ui| {
                for (model, what, _) in BUNDLED {
                    if ui.selectable_label(self.wish.model == model, model).on_hover_text(what).clicked() {
                        self.wish = Wish::new(model, None);
                        complete = true;
                    }
                }
            },
        );
        for (text, hint, width) in
            [(&mut self.wish.model, "or a file", 220.0), (&mut self.wish.picture, "a picture", 420.0)]
        {
            let edit = egui::TextEdit::singleline(text).hint_text(hint).desired_width(width);
            let left = ui.add(edit).lost_focus();
            complete |= left && ui.input(|input| input.key_pressed(egui::Key::Enter));
        }
        if ui.button("open").clicked() || complete {
            self.open();
        }
        if ui.button("run again").clicked()
            && let Some(shown) = &mut self.shown
        {
            shown.watched.again();
        }
        ui.checkbox(&mut self.always, "all the time");
    }

    /// The error, or what is under way, or how long it took.
    fn show_state(&self, ui: &mut egui::Ui) {
        ui.horizontal_wrapped(|ui| {
            if self.coming.is_some() {
                ui.spinner();
                ui.label("opening, planning and loading on another thread");
            }
            if let Some(error) = &self.error {
                ui.label(RichText::new(error).color(ui.visuals().error_fg_color));
            } else if let Some(Shown { watched, .. }) = &self.shown {
                let launches = watched.network().plan().run.len();
                let run = match watched.seconds() {
                    Some(seconds) => format!("{:.1} ms on the device", 1e3 * seconds),
                    None => format!("{:.0} %", 100.0 * watched.progress()),
                };
                ui.label(format!(
                    "{}: {launches} launches in slices over {} frames, {run}; made in {:.1} s",
                    self.gpu.target().name,
                    watched.frames,
                    watched.made_in.as_secs_f64()
                ));
            } else if self.coming.is_none() {
                ui.label("nothing is open");
            }
        });
    }
}

impl Shown {
    /// Both sides beside each other, at the size of the answer or as large as there is room.
    fn paint(&mut self, ui: &mut egui::Ui) {
        let watched = &self.watched;
        let answer = watched.drawn.as_ref().unwrap_or(&watched.source);
        let size = Vec2::new(answer.width() as f32, answer.height() as f32);
        let (room, gap) = (ui.available_size(), ui.spacing().item_spacing.x);
        let scale = ((room.x - gap) / 2.0 / size.x).min(room.y / size.y).clamp(0.0, 1.0);
        let shown = size * scale;
        let left = Rect::from_min_size(ui.max_rect().min.round(), shown);
        let right = left.translate(Vec2::new((shown.x + gap).round(), 0.0));
        let paint = |id, rect: Rect| egui::Image::from_texture((id, rect.size())).paint_at(ui, rect);
        paint(self.source, left);
        paint(self.drawn.unwrap_or(self.source), right);
        match (watched.kind, &watched.numbers) {
            (Kind::Boxes, Some(numbers)) => {
                let painter = ui.painter().with_clip_rect(right);
                answer::boxes(numbers, &watched.labels)
                    .iter()
                    .rev()
                    .for_each(|found| found.paint(&painter, right, scale));
            }
            (Kind::Names, Some(numbers)) => {
                let text = answer::names(numbers, &watched.labels);
                let font = egui::FontId::monospace(16.0);
                let galley = ui.painter().layout_no_wrap(text, font, Color32::WHITE);
                let behind = Rect::from_min_size(right.min, galley.size()).expand(8.0);
                ui.painter().rect_filled(behind, 0.0, Color32::from_black_alpha(180));
                ui.painter().galley(right.min, galley, Color32::WHITE);
            }
            _ => {}
        }
        self.place = Some((right, scale));
    }
}

impl Found {
    /// A box with its name above it, in the colour of its class.
    fn paint(&self, painter: &egui::Painter, picture: Rect, scale: f32) {
        let [left, top, right, bottom] = self.edges.map(|edge| edge * scale);
        let place = Rect::from_min_max(egui::pos2(left, top), egui::pos2(right, bottom))
            .translate(picture.min.to_vec2());
        let colour = answer::colour(self.class);
        painter.rect_stroke(place, 0.0, (2.0, colour), egui::StrokeKind::Outside);
        let galley =
            painter.layout_no_wrap(self.text.clone(), egui::FontId::proportional(12.0), Color32::WHITE);
        let corner = place.left_top() - Vec2::new(1.0, galley.size().y);
        painter.rect_filled(Rect::from_min_size(corner, galley.size()), 0.0, colour);
        painter.galley(corner, galley, Color32::WHITE);
    }
}
